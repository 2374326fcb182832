//! The background requests: a location of the server is asked when channels and clients come and go, and what a websocket
//! client sends goes to one.

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use crate::config::value::Template;
use crate::http::Request;
use crate::http::hook::Refusal;
use crate::server::log::Level;
use crate::settings;

settings! {
    /// The URIs of the background requests. A URI without arguments is asked with the client's.
    pub(super) struct Hooks {
        /// Asked when a client makes a channel by coming first.
        "push_stream_channel_created_request" SERVER_IF = "" => pub(super) channel_created: Option<Template>,
        /// Asked when a channel is deleted by a publisher.
        "push_stream_channel_destroyed_request" SERVER_IF = "" => pub(super) channel_destroyed: Option<Template>,
        /// Asked when a client has subscribed. What it answers does not refuse the client, and a slow one does not keep it
        /// waiting: 100 ms after its beginning, at the latest, the client has its own answer.
        ///
        /// Example: `push_stream_client_subscribed_request /subscribe;`
        "push_stream_client_subscribed_request" SERVER_IF = "" => pub(super) client_subscribed: Option<Template>,
        /// Asked when a client has left its channels.
        "push_stream_client_unsubscribed_request" SERVER_IF = "" => pub(super) client_unsubscribed: Option<Template>,
        /// Asked when the last client of a worker has left a channel.
        "push_stream_all_worker_clients_unsubscribed_request" SERVER_IF = "" => pub(super) all_worker_clients_unsubscribed: Option<Template>,
        /// Gets what a websocket client sends, as the body of a POST. What it answers is published to the client's
        /// channels, unless it fails. `push_stream_websocket_allow_publish` must be on.
        "push_stream_client_publish_request" SERVER_IF = "" => pub(super) client_publish: Option<Template>,
    }
}

impl Hooks {
    /// The directives whose requests need a location of the server.
    pub(super) const DIRECTIVES: [&str; 6] = [
        "push_stream_channel_created_request",
        "push_stream_channel_destroyed_request",
        "push_stream_client_subscribed_request",
        "push_stream_client_unsubscribed_request",
        "push_stream_all_worker_clients_unsubscribed_request",
        "push_stream_client_publish_request",
    ];
}

/// Whether a directive is one of the three that the recipe's fork of 2019 brought for clients.
pub(super) fn is_of_the_fork(directive: &str) -> bool {
    ["subscribed", "unsubscribed", "publish"].iter().any(|what| {
        directive.strip_prefix("push_stream_client_").and_then(|rest| rest.strip_suffix("_request")) == Some(what)
    })
}

/// A background request of a client.
pub(super) struct Hook {
    /// The directive that asks for it.
    pub(super) directive: &'static str,
    /// The request.
    pub(super) request: Request,
    /// The channel that it is about, or several, for the log.
    pub(super) channel: String,
}

impl Hook {
    /// One that a template of the location names; `None` if none does.
    pub(super) fn of(
        directive: &'static str,
        template: Option<&Template>,
        request: &Request,
        channel: impl ToString,
    ) -> Option<Self> {
        let uri = request.eval(template?);
        let request = request.background(&uri, &request.args);
        Some(Self { directive, request, channel: channel.to_string() })
    }

    /// Asks, without anybody waiting for it.
    pub(super) fn spawn(self) {
        spawn_local(async move { drop(self.ask().await) });
    }

    /// Asks, and hands on the refusal of the client, if there is one. Says when that is done.
    pub(super) fn spawn_then(self, refused: impl FnOnce(Refusal) + 'static) -> oneshot::Receiver<()> {
        let (done, asked) = oneshot::channel::<()>();
        spawn_local(async move {
            if let Err(Some(refusal)) = self.ask().await {
                refused(refusal);
            }
            drop(done);
        });
        asked
    }

    /// Asks, and waits for the answer's body. What fails is logged.
    pub(super) async fn ask(mut self) -> Result<Bytes, Option<Refusal>> {
        const LONGEST: usize = 64 * 1024 * 1024;
        let response = self.request.run().await;
        let status = response.status;
        let body = response.body.collect(LONGEST).await;
        let refusal = self.request.note::<Option<Refusal>>().cloned().flatten();
        let failed = match body {
            Some(body) if status < 300 && refusal.is_none() => return Ok(body),
            Some(_) => format!("was answered with {status}"),
            None => "broke off".to_owned(),
        };
        let Self { directive, channel, .. } = &self;
        self.request.log(Level::Error, &format!("push stream module: {directive} of channel \"{channel}\" {failed}"));
        Err(refusal)
    }
}
