//! The steps of a case: each does something to the server and tells what was observed.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use crate::case::{Case, Check, Frame, Observed, Step, Verb};
use crate::compare::differences;
use crate::connection::{Connection, Framing, Head, encode, header};
use crate::support::wait::PATIENCE;
use crate::text::{Pattern, show, substitute, unshow, wire};
use crate::world::World;

/// After so many lines of differences, more of them help nobody.
const ENOUGH: usize = 400;

/// Runs the steps of a case, its sleeps so many times as long; the differences from what was recorded, as lines.
pub(crate) fn run(case: &Case, sleeps: u32) -> Vec<String> {
    let mut world = match World::prepare(case, &case.config) {
        Ok(world) => world,
        Err(problem) => return vec![problem],
    };
    let mut out = Vec::new();
    match world.start() {
        Err(problem) => out.push(problem),
        Ok(()) => {
            for (number, step) in case.steps.iter().enumerate() {
                let seen = perform(&mut world, step, sleeps)
                    .unwrap_or_else(|problem| Observed { error: Some(problem), ..Observed::default() });
                let lines = differences(&step.expect, &seen, &world.values);
                if !lines.is_empty() {
                    out.push(format!("  step {} {}", number + 1, describe(step)));
                    out.extend(lines);
                    if out.len() > ENOUGH || seen.error.is_some() && step.expect.error.is_none() {
                        break;
                    }
                }
            }
        }
    }
    out.extend(world.stop().err());
    out
}

/// Runs `-t` for one check.
pub(crate) fn check(case: &Case, check: &Check) -> Vec<String> {
    let compare = |world: World<'_>| {
        let seen = world.run(&["-t".into()]).map_err(|e| e.to_string())?;
        Ok(differences(&check.expect, &seen, &world.values))
    };
    World::prepare(case, &check.config).and_then(compare).unwrap_or_else(|problem| vec![problem])
}

fn describe(step: &Step) -> String {
    let what = step.about.as_ref().or(step.request.as_ref()).or(step.query.as_ref());
    let what = what.and_then(|text| text.trim().lines().next()).unwrap_or_default();
    let name = format!("{:?}", step.verb).to_lowercase();
    step.conn.as_ref().map_or_else(|| format!("{name} {what}"), |conn| format!("{name} [{conn}] {what}"))
}

fn perform(world: &mut World<'_>, step: &Step, sleeps: u32) -> Result<Observed, String> {
    let nothing = Ok(Observed::default());
    match step.verb {
        Verb::Http => return http(world, step).map_err(|e| e.to_string()),
        Verb::Send => send(world, step).map_err(|e| e.to_string())?,
        Verb::Read => return read(world, step),
        Verb::WsSend => {
            let bytes: Vec<u8> = step.frames.iter().flat_map(|frame| encode(frame, &world.values)).collect();
            opened(world, step)?.send(&bytes);
        }
        Verb::WsRecv => return ws_recv(world, step),
        Verb::Close => drop(step.conn.as_ref().and_then(|name| world.connections.remove(name))),
        Verb::Sql => return Ok(sql(world, step)),
        Verb::Sleep => sleep(step, sleeps),
        Verb::Signal => {
            world.signal(step.signal.as_deref().unwrap_or("TERM"));
            if step.wait {
                let exit = world.wait(Duration::from_secs_f64(step.within.unwrap_or(5.0)));
                let error = exit.is_none().then(|| "still running".to_owned());
                return Ok(Observed { exit, error, ..Observed::default() });
            }
        }
        Verb::Run => return world.run(&step.args).map_err(|e| e.to_string()),
        Verb::Write => world.write_text(&step.path, &step.text).map_err(|e| e.to_string())?,
        Verb::Rename => std::fs::rename(world.path(&step.path), world.path(&step.to)).map_err(|e| e.to_string())?,
        Verb::File => {
            let body = std::fs::read(world.path(&step.path)).ok().map(|bytes| show(&bytes));
            return Ok(Observed { missing: body.is_none().then_some(true), body, ..Observed::default() });
        }
        Verb::BackendGot => {
            let backend = world.backends.get(&step.backend).ok_or("no such backend")?;
            return Ok(Observed { requests: Some(backend.take_requests()), ..Observed::default() });
        }
    }
    nothing
}

/// The connection of a step that has to be open already.
fn opened<'a>(world: &'a mut World<'_>, step: &Step) -> Result<&'a mut Connection, String> {
    let name = step.conn.as_deref().unwrap_or_default();
    world.connections.get_mut(name).ok_or_else(|| format!("connection {name:?} is not open"))
}

/// The bytes that a step sends, and the method of the request they begin.
fn outgoing(world: &World<'_>, step: &Step) -> Option<(Vec<u8>, String)> {
    let text = step.request.as_ref().or(step.raw.as_ref())?;
    let bytes = match &step.request {
        Some(request) => wire(request, &world.values),
        None => unshow(&substitute(text, &world.values)),
    };
    let method = text.trim_start_matches('\n').split(' ').next().unwrap_or_default();
    Some((bytes, method.to_owned()))
}

fn send(world: &mut World<'_>, step: &Step) -> std::io::Result<()> {
    let outgoing = outgoing(world, step);
    let connection = world.connection(step.conn.as_deref().unwrap_or_default(), &step.port)?;
    if let Some((bytes, method)) = outgoing {
        let method = if step.request.is_some() { Some(method) } else { step.method.clone() };
        connection.methods.extend(method);
        connection.send(&bytes);
    }
    Ok(())
}

fn http(world: &mut World<'_>, step: &Step) -> std::io::Result<Observed> {
    // A step without a name has a connection of its own.
    let name = step.conn.clone().unwrap_or_default();
    let outgoing = outgoing(world, step);
    let connection = world.connection(&name, &step.port)?;
    if let Some((bytes, method)) = outgoing {
        connection.methods.push(method);
        connection.send(&bytes);
    }
    let (seen, headers) = answer(connection, step);
    if step.conn.is_none() {
        world.connections.remove("");
    }
    for (name, place) in &step.capture {
        let value = capture(place, &headers, seen.body.as_deref());
        world.values.insert(name.clone(), value);
    }
    Ok(seen)
}

/// Reads the next answer on a connection.
fn answer(connection: &mut Connection, step: &Step) -> (Observed, Vec<(String, String)>) {
    let deadline = deadline(step);
    let method = step.method.clone().or_else(|| connection.methods.first().cloned()).unwrap_or_else(|| "GET".into());
    let mut seen = Observed::default();
    let (status, headers) = match connection.head(deadline) {
        Head::Came { status, headers } => (status, headers),
        other => {
            match other {
                Head::Timeout => seen.status = Some("none in time".into()),
                Head::Closed | Head::Came { .. } => seen.closed = Some(true),
            }
            seen.body = (!connection.buffer.is_empty()).then(|| show(&connection.buffer));
            return (seen, Vec::new());
        }
    };
    connection.begin(&status, &headers, &method);
    let interim = status.split_whitespace().nth(1).is_some_and(|code| code.len() == 3 && code.starts_with('1'));
    if !interim && !connection.methods.is_empty() {
        connection.methods.remove(0);
    }
    if !step.stream && connection.framing != Framing::WebSocket {
        let (body, complete) = connection.body(deadline);
        if method != "HEAD" && connection.framing != Framing::None {
            let body = decoded(body, &headers);
            seen.length = Some(body.len());
            seen.body = Some(show(&body) + if complete { "" } else { "<incomplete>" });
        }
    }
    if step.watch_close || step.expect.closed.is_some() {
        let stays_open = step.expect.closed == Some(false);
        seen.closed = Some(connection.closes(Duration::from_millis(if stays_open { 300 } else { 3000 })));
    }
    seen.status = Some(status);
    seen.headers = Some(headers.iter().map(|(name, value)| format!("{name}: {value}")).collect());
    (seen, headers)
}

/// The body without its content encoding; what can't be decoded stays as it is.
fn decoded(body: Vec<u8>, headers: &[(String, String)]) -> Vec<u8> {
    let mut plain = Vec::new();
    let result = match header(headers, "content-encoding") {
        Some("gzip") => flate2::read::MultiGzDecoder::new(&*body).read_to_end(&mut plain),
        Some("deflate") => flate2::read::ZlibDecoder::new(&*body).read_to_end(&mut plain),
        _ => return body,
    };
    if result.is_ok() { plain } else { body }
}

/// The value at `header:NAME`, `escaped-header:NAME` or `body:REGEX` (its first group) of an answer.
fn capture(place: &str, headers: &[(String, String)], body: Option<&str>) -> String {
    let (kind, rest) = place.split_once(':').unwrap_or((place, ""));
    let first = || headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(rest)).map(|(_, value)| value.as_str());
    let value = match kind {
        "header" => first().map(str::to_owned),
        "escaped-header" => first().map(percent_encoded),
        "body" => {
            regex::Regex::new(rest).ok().and_then(|regex| Some(regex.captures(body?)?.get(1)?.as_str().to_owned()))
        }
        _ => None,
    };
    value.unwrap_or_default()
}

fn percent_encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Waits for exactly the expected bytes, then for silence.
fn read(world: &mut World<'_>, step: &Step) -> Result<Observed, String> {
    let wanted = Pattern::new(step.expect.body.as_deref().unwrap_or_default(), &world.values);
    let must_end = step.expect.ended == Some(true);
    let connection = opened(world, step)?;
    if connection.ended && connection.framing != Framing::WebSocket {
        connection.framing = Framing::Raw;
        connection.ended = false;
    }
    let mut data = Vec::new();
    let (deadline, quiet) = (deadline(step), quiet(step));
    loop {
        data.extend(connection.pump());
        if connection.ended {
            break;
        }
        let done = !must_end && wanted.matches(&show(&data));
        let time = if done { quiet } else { deadline.saturating_duration_since(Instant::now()) };
        if time.is_zero() || !connection.fill(time) {
            break;
        }
    }
    let ended = connection.ended.then_some(true);
    Ok(Observed { body: Some(show(&data)), ended, ..Observed::default() })
}

/// Waits for as many frames as expected, then for silence.
fn ws_recv(world: &mut World<'_>, step: &Step) -> Result<Observed, String> {
    let wanted = step.expect.frames.as_ref().map_or(0, Vec::len);
    let must_close = step.expect.closed == Some(true);
    let connection = opened(world, step)?;
    connection.framing = Framing::WebSocket;
    let mut frames: Vec<Frame> = Vec::new();
    let (deadline, quiet) = (deadline(step), quiet(step));
    loop {
        frames.extend(std::iter::from_fn(|| connection.frame()));
        if connection.eof {
            break;
        }
        let done = frames.len() >= wanted && !must_close;
        let time = if done { quiet } else { deadline.saturating_duration_since(Instant::now()) };
        if time.is_zero() || !connection.fill(time) {
            break;
        }
    }
    let body = (!connection.buffer.is_empty()).then(|| show(&connection.buffer));
    let closed = connection.eof.then_some(true);
    Ok(Observed { frames: Some(frames), body, closed, ..Observed::default() })
}

/// What is expected comes in time on an idle machine; on a busy one it may take longer.
fn deadline(step: &Step) -> Instant {
    Instant::now() + Duration::from_secs_f64(step.within.unwrap_or_default()).max(PATIENCE / 4)
}

fn quiet(step: &Step) -> Duration {
    Duration::from_secs_f64(step.quiet.unwrap_or(0.25))
}

fn sql(world: &mut World<'_>, step: &Step) -> Observed {
    let sql = substitute(step.query.as_deref().unwrap_or_default(), &world.values);
    let session = world.session(step.conn.as_deref().unwrap_or("main"));
    match session.query(&sql) {
        Err(e) => {
            let error = e.code().map_or_else(|| e.to_string(), |code| code.code().to_owned());
            Observed { error: Some(error), ..Observed::default() }
        }
        Ok(rows) if rows.is_empty() && step.expect.rows.is_none() => Observed::default(),
        Ok(rows) => {
            let cell = |cell: Option<String>| cell.map_or_else(|| "%%NULL%%".to_owned(), |text| show(text.as_bytes()));
            let rows = rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect();
            Observed { rows: Some(rows), ..Observed::default() }
        }
    }
}

fn sleep(step: &Step, times: u32) {
    let time = if step.until.as_deref() == Some("second") {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Duration::from_millis(1020) - Duration::from_nanos(now.subsec_nanos().into())
    } else {
        Duration::from_secs_f64(step.seconds.unwrap_or(0.0))
    };
    std::thread::sleep(time * times);
}
