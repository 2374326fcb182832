//! Logging in: which host, which kind of stream, which proof of who we are.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::{Connection, Query, TransactionStatus, protocol};
use crate::pg::conninfo::{ConnectOptions, Host, TargetSession};
use crate::pg::error::{Error, ServerError};
use crate::pg::statements::Statements;
use crate::pg::stream::{Stream, connect_with};
use crate::pg::wire::Wire;
use crate::server::log::Level;

/// Tries the hosts in their order: the first one that lets us in and suits, or the last failure.
pub(super) async fn connect_any(options: &Arc<ConnectOptions>) -> Result<Connection, Error> {
    let wanted: &[TargetSession] = match options.target_session_attrs {
        TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
        ref other => std::slice::from_ref(other),
    };
    let mut last = Error::NoServers;
    for wanted in wanted {
        for host in &options.hosts {
            match connect_host(host, options).await {
                Ok(mut connection) => match connection.check_suits(*wanted).await {
                    Ok(()) => return Ok(connection),
                    Err(error) => last = error,
                },
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

async fn connect_host(host: &Host, options: &Arc<ConnectOptions>) -> Result<Connection, Error> {
    connect_with(host, options, |stream| login(stream, host, options)).await
}

async fn login(stream: Stream, host: &Host, options: &Arc<ConnectOptions>) -> Result<Connection, Error> {
    let mut connection = Connection {
        wire: Wire::new(stream),
        host: host.clone(),
        options: Arc::clone(options),
        process: 0,
        secret: 0,
        parameters: BTreeMap::new(),
        unsuitable: None,
        statements: Statements::default(),
        in_flight: VecDeque::new(),
        first_row: None,
        command_tag: String::new(),
        transaction: TransactionStatus::Idle,
        // Until the login is through nothing may be said on it.
        broken: true,
        timeout: None,
        queries: 0,
    };
    let startup = startup_parameters(options);
    let startup = startup.iter().map(|(name, value)| (*name, *value));
    frontend::startup_message(startup, &mut connection.wire.outgoing).map_err(protocol)?;
    connection.authenticate().await?;
    connection.broken = false;
    if let Some(reason) = connection.unsuitable {
        return Err(Error::Unsuitable { address: host.to_string(), reason });
    }
    let pid = connection.process;
    options.journal.say(Level::Info, || format!("connected to {host}, backend {pid}"));
    connection.wire.trace(options.journal.trace.clone());
    Ok(connection)
}

fn startup_parameters(options: &ConnectOptions) -> Vec<(&'static str, &str)> {
    // Our quoting counts on standard strings, whatever the server's default.
    let mut startup = vec![("standard_conforming_strings", "on")];
    let optional = [
        ("user", options.user.as_deref()),
        ("database", options.dbname.as_deref()),
        ("application_name", Some(options.application_name.as_str())),
        ("options", options.options.as_deref()),
        ("client_encoding", options.client_encoding.as_deref()),
    ];
    startup.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    startup
}

impl Connection {
    async fn authenticate(&mut self) -> Result<(), Error> {
        let options = Arc::clone(&self.options);
        let password = || match &options.password {
            Some(password) => Ok(password.reveal().as_bytes()),
            None => Err(Error::Authentication("fe_sendauth: no password supplied".to_owned())),
        };
        let mut scram: Option<ScramSha256> = None;
        loop {
            self.wire.flush().await.map_err(|error| Error::lost(&error))?;
            let message = self.wire.message().await.map_err(|error| Error::lost(&error))?;
            let out = &mut self.wire.outgoing;
            match message {
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password()?, out).map_err(protocol)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let user = options.user.as_deref().unwrap_or_default();
                    let hash = md5_hash(user.as_bytes(), password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), out).map_err(protocol)?;
                }
                Message::AuthenticationSasl(body) => {
                    if !body.mechanisms().any(|name| Ok(name == SCRAM_SHA_256)).map_err(protocol)? {
                        let reason = "none of the server's SASL authentication mechanisms are supported";
                        return Err(Error::Authentication(reason.to_owned()));
                    }
                    let state = ScramSha256::new(password()?, ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, state.message(), out).map_err(protocol)?;
                    scram = Some(state);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let state = scram.as_mut().ok_or_else(|| unexpected("SASL"))?;
                    state.update(body.data()).map_err(authentication)?;
                    frontend::sasl_response(state.message(), out).map_err(protocol)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let state = scram.as_mut().ok_or_else(|| unexpected("SASL"))?;
                    state.finish(body.data()).map_err(authentication)?;
                }
                Message::AuthenticationOk => {}
                Message::NoticeResponse(body) => options.journal.notice(&ServerError::read(body.fields())),
                Message::ParameterStatus(body) => self.note(&body)?,
                Message::BackendKeyData(body) => {
                    self.process = body.process_id();
                    self.secret = body.secret_key();
                }
                Message::ErrorResponse(body) => {
                    return Err(Error::Login(Box::new(ServerError::read(body.fields()))));
                }
                Message::ReadyForQuery(_) => return Ok(()),
                _ => {
                    return Err(Error::Authentication("authentication method is not supported".to_owned()));
                }
            }
        }
    }

    /// Whether the server is of the wanted kind.
    async fn check_suits(&mut self, wanted: TargetSession) -> Result<(), Error> {
        if wanted == TargetSession::Any {
            return Ok(());
        }
        let sql = "select pg_catalog.pg_is_in_recovery(), \
                   pg_catalog.current_setting('transaction_read_only') = 'on'";
        self.query(&Query::from(sql)).await?;
        let row = self.next_row().await?.ok_or_else(|| unexpected("an empty result"))?;
        let (standby, read_only) = (row.get(0) == Some(b"t"), row.get(1) == Some(b"t"));
        self.drain().await?;
        let reason = match wanted {
            TargetSession::ReadWrite if read_only => "session is read-only",
            TargetSession::ReadOnly if !read_only => "session is not read-only",
            TargetSession::Primary if standby => "server is in hot standby mode",
            TargetSession::Standby if !standby => "server is not in hot standby mode",
            _ => return Ok(()),
        };
        Err(Error::Unsuitable { address: self.host.to_string(), reason })
    }
}

fn authentication(error: io::Error) -> Error {
    Error::Authentication(error.to_string())
}

fn unexpected(what: &str) -> Error {
    Error::Protocol(what.to_owned())
}
