//! Upstreams by name: what the limits of a name let pass, and what is kept when its answer changes.

use slipring::policy::names::NameLimits;
use slipring::resolve::{Fixed, ResolveLimits};
use slipring::upstream::Upstream;

#[test]
fn a_name_that_is_an_address_is_held_to_its_limits_too() {
    let names = NameLimits { is_public: true, ..NameLimits::default() };
    let limits = ResolveLimits { names, ..ResolveLimits::default() };
    let of = |text: &str, limits: ResolveLimits| {
        let query = text.parse().expect("a query");
        let built = Upstream::builder("test").name(query, Fixed::new(), limits).build();
        built.map(drop).map_err(|error| error.to_string())
    };
    for text in
        ["127.0.0.1:80", "[::ffff:10.0.0.1]:80", "169.254.169.254:80", "[64:ff9b::a00:1]:80"]
    {
        let error = of(text, limits).expect_err("it is not");
        assert!(error.starts_with(&format!("{text} is not public, ")), "{error}");
        assert_eq!(of(text, ResolveLimits::default()), Ok(()), "nobody says that it is public");
    }
    assert_eq!(of("8.8.8.8:80", limits), Ok(()));
    let senseless = ResolveLimits { names_max: 0, ..limits };
    let refused = of("8.8.8.8:80", senseless).expect_err("as with any other name");
    assert!(refused.starts_with("names: 0 names are kept"), "{refused}");
}
