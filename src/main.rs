//! The command line, nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use pushgate::config::{LoadOptions, load};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1)).cloned();
    let prefix = PathBuf::from(value("-p").unwrap_or_else(|| ".".into()));
    let file = PathBuf::from(value("-c").unwrap_or_else(|| "conf/nginx.conf".into()));
    let config = load(LoadOptions { prefix, file, ..LoadOptions::default() });
    if !config.is_good() {
        #[allow(clippy::print_stderr, reason = "until the command line is there")]
        for diagnostic in &config.built.diagnostics {
            eprintln!("pushgate: {}", diagnostic.nginx_line(&config.built.sources));
        }
        return ExitCode::FAILURE;
    }
    pushgate::server::run(config)
}
