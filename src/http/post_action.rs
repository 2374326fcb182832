//! `post_action`: what is done inside the server once a client has its answer. With it, the end of every request.

use super::module::Jump;
use super::request::Request;
use crate::config::value::Text;
use crate::settings;

settings! {
    /// What follows an answer.
    pub struct PostAction {
        /// A path of this server, or a named location, that is asked when the answer has been sent; what it answers goes nowhere.
        /// The next request of the connection waits for it.
        "post_action" HTTP_ALL_IF = "" => pub target: Text,
    }
}

impl Request {
    /// The end of a client's request, whether it got its answer or not: `post_action`, and the logs.
    pub(super) async fn finish(&mut self) {
        let target = &self.settings::<PostAction>().target;
        if !target.is_empty() {
            let target = target.0.clone();
            Box::pin(self.act(target)).await;
        }
        self.write_logs();
    }

    async fn act(&mut self, target: bytes::Bytes) {
        let jump = match target.starts_with(b"@") {
            true => Jump::Named(target),
            false => Jump::Redirect { uri: target, args: self.args.clone() },
        };
        self.is_answered = true;
        // What is left of the body was skipped.
        self.body.get_or_insert_default();
        let mut body = self.run_after(jump).await.body;
        // What an upstream sends is read to its end, so that its connection can be kept.
        while let Some(Ok(_)) = body.next().await {}
    }
}
