//! Seeds that once found something find nothing any more.

use slipring_sim::campaign::corpus;
use slipring_sim::swarm;

#[test]
fn the_corpus_passes() {
    swarm::capture_panics();
    let entries = corpus::entries(corpus::TEXT).expect("its lines can be read");
    assert!(!entries.is_empty());
    let (tally, findings) = corpus::run(&entries);
    let failed: Vec<String> = findings
        .iter()
        .map(|finding| {
            let failure = finding.outcome.failure.as_deref().unwrap_or_default();
            format!(
                "{}\n  {failure}\n  {}",
                finding.reproduce(),
                finding.outcome.story.join("\n  ")
            )
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert_eq!(tally.seeds, entries.len() as u64);
}
