//! HAProxy and nginx as TCP proxies: as their distribution ships them, and tuned.
//!
//! Each runs in the foreground as one process with one thread, listens on loopback only, and reads
//! a configuration written for this run into a directory that is removed at its end. The
//! distribution's own services and configurations are not touched.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::contenders::Contender;
use super::process::{Ready, Recipe, free_address};
use super::say;

const HAPROXY: &str = "/usr/sbin/haproxy";
const NGINX: &str = "/usr/sbin/nginx";
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The directory of this run's configurations. Dropping it removes it.
#[derive(Debug)]
pub struct Configurations {
    directory: PathBuf,
}

impl Configurations {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> io::Result<Self> {
        let name = format!("slipring-proxies-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory)?;
        Ok(Self { directory })
    }

    /// The proxies that are installed, each as shipped and tuned, in front of `upstream`.
    ///
    /// # Errors
    /// When a configuration cannot be written.
    pub fn contenders(&self, upstream: SocketAddr) -> io::Result<Vec<Contender>> {
        let mut contenders = Vec::new();
        if Path::new(HAPROXY).exists() {
            contenders.push(self.haproxy("haproxy", "", "", upstream)?);
            let (global, defaults) = ("    tune.bufsize 65536\n", "    option splice-auto\n");
            contenders.push(self.haproxy("haproxy, tuned", global, defaults, upstream)?);
        } else {
            say("haproxy: not installed (scripts/compare installs it)");
        }
        if Path::new(NGINX).exists() && Path::new(NGINX_STREAM).exists() {
            contenders.push(self.nginx("nginx stream", "", upstream)?);
            let tuned = "        proxy_buffer_size 64k;\n";
            contenders.push(self.nginx("nginx stream, tuned", tuned, upstream)?);
        } else {
            say("nginx with its stream module: not installed (scripts/compare installs it)");
        }
        Ok(contenders)
    }

    fn haproxy(
        &self,
        name: &str,
        global: &str,
        defaults: &str,
        upstream: SocketAddr,
    ) -> io::Result<Contender> {
        let listen = free_address()?;
        let text = format!(
            "global\n    nbthread 1\n    maxconn 4096\n{global}\
             defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    \
             timeout server 60s\n{defaults}\
             frontend clients\n    bind {listen}\n    default_backend servers\n\
             backend servers\n    server echo {upstream}\n"
        );
        let path = self.write(name, &text)?;
        Ok(contender(name, HAPROXY, vec!["-q".into(), "-db".into(), "-f".into(), path], listen))
    }

    fn nginx(&self, name: &str, server: &str, upstream: SocketAddr) -> io::Result<Contender> {
        let listen = free_address()?;
        let directory = self.directory.display();
        let text = format!(
            "load_module {NGINX_STREAM};\ndaemon off;\nmaster_process off;\nworker_processes 1;\n\
             pid {directory}/nginx.pid;\nerror_log stderr error;\n\
             events {{\n    worker_connections 4096;\n}}\n\
             stream {{\n    server {{\n        listen {listen};\n        proxy_pass {upstream};\n\
             {server}    }}\n}}\n"
        );
        let path = self.write(name, &text)?;
        let log = vec!["-e".into(), "stderr".into()];
        Ok(contender(name, NGINX, [log, vec!["-c".into(), path]].concat(), listen))
    }

    fn write(&self, name: &str, text: &str) -> io::Result<String> {
        let path = self.directory.join(format!("{}.conf", name.replace([' ', ','], "-")));
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }
}

impl Drop for Configurations {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

fn contender(name: &str, program: &str, arguments: Vec<String>, listen: SocketAddr) -> Contender {
    let recipe = Recipe { program: program.into(), arguments, ready: Ready::At(listen) };
    Contender { name: name.to_owned(), recipe }
}
