//! `pushgate demo`: the recipe with a page and a PostgreSQL of its own, in a folder that is gone afterwards.

mod postgres;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use postgres::Postgres;

use super::options::{Wrong, superfluous};
use super::{Command, output};
use crate::compile::Compiled;
use crate::config::{self, LoadOptions};

/// The recipe's configuration; the addresses in it are replaced.
const RECIPE: &str = include_str!("../../../conf.d/recipe.conf");
const RECIPE_SERVER: &str = "127.0.0.1:8080";
const RECIPE_POSTGRES: &str = "127.0.0.1:5433";
/// The page.
const PAGE: &str = include_str!("../../../web/demo.html");
/// The port that the page has if it is free.
const PORT: u16 = 8080;

pub(super) const COMMAND: Command = Command {
    name: "demo",
    summary: "run the recipe with a page and a PostgreSQL of its own",
    usage: "

  Everything listens on 127.0.0.1 and lives in a temporary folder, until Ctrl-C.",
    run,
};

/// Runs the demo until Ctrl-C.
fn run(words: &[String]) -> Result<ExitCode, Wrong> {
    if let Some(word) = words.first() {
        return Err(superfluous(word));
    }
    Ok(demo().unwrap_or_else(|error| {
        output::error(&format!("pushgate demo: {error}\n"));
        ExitCode::FAILURE
    }))
}

fn demo() -> Result<ExitCode, String> {
    let folder = Folder::new().map_err(|error| format!("no folder could be made in the temporary one: {error}"))?;
    say("starting a PostgreSQL of its own …");
    let postgres = Postgres::start(&folder.0)?;
    let port = free_port()?;
    let options = write(&folder.0, &postgres, port).map_err(|error| format!("writing the demo's files: {error}"))?;
    let config = config::load(options);
    if let Some(fault) = config.built.diagnostics.iter().find(|finding| finding.refuses) {
        return Err(fault.nginx_line(&config.built.sources).to_string());
    }
    say(&format!(
        "\n  page    http://127.0.0.1:{port}/\n  psql    {} -c \"notify news, 'hello'\"\n  curl    curl -d hello \
         'http://127.0.0.1:{port}/publisher?id=news'\n\nCtrl-C ends it all.\n",
        postgres.psql(),
    ));
    let code = crate::server::run(Compiled::new(config));
    say("stopping PostgreSQL …");
    postgres.stop();
    Ok(code)
}

/// Writes what the server reads: the recipe with its addresses, the page, and what the page tells of PostgreSQL.
fn write(folder: &Path, postgres: &Postgres, port: u16) -> io::Result<LoadOptions> {
    let text = RECIPE
        .replace(RECIPE_SERVER, &format!("127.0.0.1:{port}"))
        .replace(RECIPE_POSTGRES, &format!("127.0.0.1:{}", postgres.port));
    let html = folder.join("html");
    fs::create_dir(&html)?;
    fs::create_dir(folder.join("logs"))?;
    fs::write(html.join("index.html"), PAGE)?;
    fs::write(html.join("demo.json"), serde_json::json!({ "psql": postgres.psql() }).to_string())?;
    let file = folder.join("recipe.conf");
    fs::write(&file, text)?;
    Ok(LoadOptions { prefix: folder.to_owned(), file, ..LoadOptions::default() })
}

/// The port that people expect, or else any.
fn free_port() -> Result<u16, String> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|socket| socket.local_addr());
    let address = bind(PORT).or_else(|_| bind(0)).map_err(|error| format!("no free port: {error}"))?;
    Ok(address.port())
}

/// The demo's folder; goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("pushgate-demo-{}", std::process::id()));
        fs::create_dir(&path)?;
        // The workers and PostgreSQL may run as other users.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed lies in the temporary folder, where the system removes it.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Tells whoever started the demo.
fn say(text: &str) {
    output::print(format!("{text}\n"));
}
