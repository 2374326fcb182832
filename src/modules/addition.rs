//! ngx_http_addition_filter_module: answers of other locations before and after an answer.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;

use crate::config::Declarations;
use crate::config::value::{MimeTypes, Text};
use crate::http::{AlreadyTold, Body, BodyStream, Module, Request, Response};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_addition_filter",
        sections: &[Addition::ROW],
        commands: &[],
        variables: &[],
    },
    filter: Some(filter),
    acts: Some(|settings| !settings.get::<Addition>().is_empty()),
    ..Module::EMPTY
};

settings! {
    /// What is added to answers with status 200.
    pub struct Addition {
        /// A path of this server, whose answer is sent before the one that was asked for.
        ///
        /// Example: `add_before_body /header.html;`
        "add_before_body" HTTP_ALL = "" => before: Text,
        /// A path of this server, whose answer is sent after the one that was asked for. An empty one ends what would be
        /// inherited.
        "add_after_body" HTTP_ALL = "" => after: Text,
        /// The content types of answers that something is added to; `*` is all. `text/html` always is.
        "addition_types" HTTP_ALL = "text/html" => types: MimeTypes,
    }
}

impl Addition {
    fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }
}

fn filter(request: &mut Request, response: &mut Response) {
    let settings = request.settings::<Addition>();
    let content_type = response.content_type.as_deref().unwrap_or_default();
    if !request.is_main()
        || response.status != 200
        || settings.is_empty()
        || content_type.is_empty()
        || !settings.types.contain(content_type)
        || matches!(response.body, Body::Tunnel(_) | Body::Takeover(_))
    {
        return;
    }
    response.weaken_etag();
    response.drop_ranges();
    response.content_length = None;
    response.hides_length = true;
    let source = std::mem::take(&mut response.body);
    if request.is_head() {
        return;
    }
    let ask = |uri: &Bytes| {
        let asked = (!uri.is_empty()).then(|| request.subrequest(uri.clone(), Bytes::new()).without_body());
        asked.map(|asked| Part::Asked(Box::new(asked)))
    };
    let parts = [ask(&settings.before), Some(Part::Body(source)), ask(&settings.after)];
    let mut parts: Vec<Part> = parts.into_iter().flatten().collect();
    parts.reverse();
    response.body = Body::Stream(Box::new(Adding { parts }));
}

/// A part of what is sent.
enum Part {
    /// What another location is to say.
    Asked(Box<Request>),
    /// What is there.
    Body(Body),
}

/// Several answers, one after the other; the last is the next.
struct Adding {
    parts: Vec<Part>,
}

impl BodyStream for Adding {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
        Box::pin(async {
            loop {
                match self.parts.last_mut()? {
                    Part::Asked(asked) => {
                        let answer = asked.run().await;
                        if answer.silent {
                            // The client has gone meanwhile.
                            return Some(Err(io::Error::other(AlreadyTold)));
                        }
                        self.parts.pop();
                        self.parts.push(Part::Body(answer.body));
                    }
                    Part::Body(body) => match body.next().await {
                        Some(piece) => return Some(piece),
                        None => drop(self.parts.pop()),
                    },
                }
            }
        })
    }

    fn flushes(&self) -> bool {
        matches!(self.parts.last(), Some(Part::Body(body)) if body.flushes())
    }
}
