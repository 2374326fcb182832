//! ngx_http_auth_request_module: a subrequest decides who may come in.

use bytes::Bytes;

use crate::config::value::{Template, Value};
use crate::config::{
    Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot, VarId, name_of,
};
use crate::http::{Module, Next, Phase, Request, Response};
use crate::server::log::Level;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_auth_request",
        sections: &[Ask::ROW, SectionRow::of::<Learned>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Access, check)],
    acts: Some(|settings| settings.get::<Ask>().uri.0.is_some()),
    ..Module::EMPTY
};

settings! {
    /// Who is asked.
    pub struct Ask {
        /// Asks a path of this server whether the client may come in, by a subrequest without the body: a status of 200
        /// to 299 lets it in, 401 (with its `WWW-Authenticate`) and 403 are what the client gets, and any other is an
        /// error, 500.
        ///
        /// Example: `auth_request /auth;`
        "auth_request" HTTP_ALL = "off" => uri: Asked,
    }
}

/// The path that is asked, if any.
#[derive(Clone, Debug)]
pub struct Asked(Option<Bytes>);

impl Value for Asked {
    const SYNTAX: &'static str = "uri | off";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self((call.bytes(0) != b"off").then(|| Bytes::copy_from_slice(call.bytes(0)))))
    }

    fn from_default(_: &'static str) -> Self {
        Self(None)
    }
}

const COMMANDS: &[Directive] = &[Directive {
    name: "auth_request_set",
    contexts: Contexts::HTTP_ALL,
    args: Args::exactly(2),
    syntax: "$variable value",
    doc: "Sets a variable once `auth_request` has its answer, whichever that is. In the value stand the variables of the \
          subrequest: `$upstream_http_...`, those of `postgres_set`. The whole list is inherited where a block names \
          none.\n\nExample: `auth_request_set $user $upstream_http_x_user;`",
    file: file!(),
    apply: auth_request_set,
    ..Directive::BASE
}];

/// What is learned from the answer.
#[derive(Clone, Debug)]
pub struct Learned {
    sets: Vec<(VarId, Template)>,
}

impl Section for Learned {
    type Raw = Vec<(VarId, Template)>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match parent {
            Some(parent) if raw.is_empty() => parent.clone(),
            _ => Self { sets: raw.clone() },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn auth_request_set(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let name = name_of(call.bytes(0)).map_err(|fault| fault.word(0))?;
    let variable = cx.variables().assigned(&name).map_err(|fault| fault.word(0))?;
    let value = Template::word(call, 1, cx)?;
    cx.edit::<Learned>().push((variable, value));
    Ok(())
}

/// The handler of the access phase.
fn check(request: &mut Request) -> Next<'_> {
    match request.settings::<Ask>().uri.0.clone() {
        None => Next::Declined,
        Some(uri) => Next::later(ask(request, uri)),
    }
}

async fn ask(request: &mut Request, uri: Bytes) -> Next<'static> {
    let mut asking = request.subrequest(uri, Bytes::new()).without_body();
    let response = asking.run().await;
    if response.silent {
        return Next::Status(response.status);
    }
    asking.sent.status = response.status;
    let compiled = std::sync::Arc::clone(&request.compiled);
    for (variable, value) in &compiled.settings(request.location_id).get::<Learned>().sets {
        let value = asking.eval(value);
        request.set_variable(*variable, Some(value));
    }
    decide(request, &response)
}

fn decide(request: &mut Request, response: &Response) -> Next<'static> {
    match response.status {
        200..=299 => Next::Granted,
        403 => Next::Status(403),
        401 => {
            let challenges = response.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"WWW-Authenticate"));
            for (_, challenge) in challenges {
                request.challenge(challenge.clone());
            }
            Next::Status(401)
        }
        status => {
            request.log(Level::Error, &format!("auth request unexpected status: {status}"));
            Next::Status(500)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn words() {
        assert_eq!(
            findings("auth_request /a; server { auth_request off; auth_request_set $a $b$args; set $b 1; }"),
            [""; 0]
        );
        assert_eq!(findings("auth_request_set a b;"), ["invalid variable name \"a\""]);
        assert_eq!(findings("auth_request_set $host b;"), ["the duplicate \"host\" variable"]);
        assert_eq!(findings("auth_request off; auth_request /a;"), ["\"auth_request\" directive is duplicate"]);
    }
}
