//! ngx_http_empty_gif_module: a transparent picture of one pixel.

use bytes::Bytes;

use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault};
use crate::http::content::Content;
use crate::http::wire::method::Method;
use crate::http::{Module, Next, Request, Response};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_empty_gif", sections: &[], commands: COMMANDS, variables: &[] },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[Directive {
    name: "empty_gif",
    contexts: Contexts::LOCATION,
    args: Args::NONE,
    doc: "Answers with a transparent GIF of one pixel.\n\nExample: `empty_gif;`",
    file: file!(),
    apply: empty_gif,
    ..Directive::BASE
}];

/// The picture: its size, a palette of black and white, the second colour transparent, and the one pixel.
const PICTURE: &[u8; 43] = b"GIF89a\x01\0\x01\0\x80\x01\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\x01\0,\
    \0\0\0\0\x01\0\x01\0\0\x02\x02L\x01\0;";

/// When nginx says that it was made.
const MADE: i64 = 23_349_600;

fn empty_gif(cx: &mut Cx<'_>, _: &Call<'_>) -> Result<(), Fault> {
    cx.edit::<Content>().handler = Some(answer);
    Ok(())
}

fn answer(request: &mut Request) -> Next<'_> {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Next::Status(405);
    }
    let picture = Response::with(200, "image/gif", Bytes::from_static(PICTURE));
    Next::answer(Response { last_modified: Some(MADE), ..picture })
}
