//! ngx_http_stub_status_module: how many connections there are, of all workers together.

use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Value, VariableRow};
use crate::http::content::Content;
use crate::http::wire::method::Method;
use crate::http::{Module, Next, Request, Response};
use crate::server::counts::{ACCEPTED, ACTIVE, Count, READING, REQUESTS, WAITING, WRITING};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_stub_status", sections: &[], commands: COMMANDS, variables: VARIABLES },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[Directive {
    name: "stub_status",
    contexts: Contexts::SERVER.union(Contexts::LOCATION),
    args: Args::between(0, 1),
    doc: "Answers with the numbers of connections that are open, were accepted and handled, of requests, and of \
          connections whose request is read, is answered, or is waited for. Subscribers count among those that are \
          answered. The argument of older versions has no meaning.\n\n\
          Example: `location = /status { stub_status; allow 127.0.0.1; deny all; }`",
    file: file!(),
    apply: stub_status,
    ..Directive::BASE
}];

const VARIABLES: &[VariableRow] = &[
    VariableRow::new("connections_active", |_, _| text(&ACTIVE), "The connections that are open.").volatile(),
    VariableRow::new("connections_reading", |_, _| text(&READING), "Those whose request's head is being read.")
        .volatile(),
    VariableRow::new("connections_writing", |_, _| text(&WRITING), "Those whose request is answered.").volatile(),
    VariableRow::new("connections_waiting", |_, _| text(&WAITING), "Those that wait for a request.").volatile(),
];

fn text(count: &Count) -> Value {
    Some(count.now().to_string().into())
}

fn stub_status(cx: &mut Cx<'_>, _: &Call<'_>) -> Result<(), Fault> {
    cx.edit::<Content>().handler = Some(answer);
    Ok(())
}

fn answer(request: &mut Request) -> Next<'_> {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Next::Status(405);
    }
    let (accepted, requests) = (ACCEPTED.now(), REQUESTS.now());
    let page = format!(
        "Active connections: {} \nserver accepts handled requests\n {accepted} {accepted} {requests} \n\
         Reading: {} Writing: {} Waiting: {} \n",
        ACTIVE.now(),
        READING.now(),
        WRITING.now(),
        WAITING.now()
    );
    Next::answer(Response::with(200, "text/plain", page))
}
