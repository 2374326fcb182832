//! ngx_http_mirror_module: sends a copy of each request elsewhere, whatever is answered there.

use bytes::Bytes;

use crate::config::value::Flag;
use crate::config::{Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot};
use crate::http::{Module, Next, Phase, Request};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_mirror",
        sections: &[Settings::ROW, SectionRow::of::<Mirrors>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Precontent, mirror)],
    acts: Some(|settings| !settings.get::<Mirrors>().uris.is_empty()),
    ..Module::EMPTY
};

settings! {
    /// What is copied.
    pub struct Settings {
        /// Whether the request's body is read beforehand and copied too.
        "mirror_request_body" HTTP_ALL = "on" => with_body: Flag,
    }
}

const COMMANDS: &[Directive] = &[Directive {
    name: "mirror",
    contexts: Contexts::HTTP_ALL,
    syntax: "uri | off",
    doc: "Asks a path of this server too, with the method, headers, arguments and body of the request, and leaves its answer \
          unread. The whole list is inherited where a block names none; `off` ends that.\n\n\
          Example: `mirror /copy; location = /copy { internal; proxy_pass http://test$request_uri; }`",
    file: file!(),
    apply: directive,
    ..Directive::BASE
}];

/// The paths that are asked too.
#[derive(Clone, Debug, Default)]
pub struct Mirrors {
    uris: Vec<Bytes>,
}

impl Section for Mirrors {
    /// No paths at all is `off`.
    type Raw = Option<Vec<Bytes>>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match raw {
            Some(uris) => Self { uris: uris.clone() },
            None => parent.cloned().unwrap_or_default(),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn directive(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let uris = cx.edit::<Mirrors>();
    match (call.bytes(0), uris.as_mut()) {
        (b"off", None) => *uris = Some(Vec::new()),
        (b"off", Some(_)) => return Err(call.duplicate()),
        (_, Some(uris)) if uris.is_empty() => return Err(call.duplicate()),
        (uri, _) => uris.get_or_insert_default().push(Bytes::copy_from_slice(uri)),
    }
    Ok(())
}

/// The handler: once for a request of a client.
fn mirror(request: &mut Request) -> Next<'_> {
    if !request.is_main() || request.settings::<Mirrors>().uris.is_empty() {
        return Next::Declined;
    }
    if !*request.settings::<Settings>().with_body {
        copy(request, false);
        return Next::Declined;
    }
    Next::later(async {
        match request.receive_body().await {
            Err(status) => return Next::Status(status),
            Ok(_) => copy(request, true),
        }
        Next::Declined
    })
}

fn copy(request: &Request, with_body: bool) {
    for uri in &request.settings::<Mirrors>().uris {
        let mut copied = request.subrequest(uri.clone(), request.args.clone()).in_background();
        copied.method = request.method;
        copied.method_name = request.method_name.clone();
        let mut copied = Box::new(if with_body { copied } else { copied.without_body() });
        tokio::task::spawn_local(async move {
            let mut body = copied.run().await.body;
            // What an upstream sends is read to its end, so that its connection can be kept.
            while let Some(Ok(_)) = body.next().await {}
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn words() {
        assert_eq!(findings("mirror /a; mirror /b; server { mirror off; }"), [""; 0]);
        assert_eq!(findings("mirror /a; mirror off;"), ["\"mirror\" directive is duplicate"]);
        assert_eq!(findings("mirror off; mirror /a;"), ["\"mirror\" directive is duplicate"]);
    }
}
