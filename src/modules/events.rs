//! How connections are handled: ngx_events_module, ngx_event_core_module, ngx_epoll_module.

use crate::config::value::{Flag, Msec, Number, parse_number};
use crate::config::{
    Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot, Status,
};
use crate::http::Module;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "event",
        sections: &[Ignored::ROW, SectionRow::of::<Connections>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    ..Module::EMPTY
};

settings! {
    /// What tunes things that do not exist here.
    pub struct Ignored {
        /// Whether nginx's workers take turns in accepting.
        @Status::Ignored("each worker has a socket of its own"); "accept_mutex" EVENTS = "off" => pub accept_mutex: Flag,
        /// How long nginx's workers wait for their turn.
        @Status::Ignored("each worker has a socket of its own"); "accept_mutex_delay" EVENTS = "500ms" => pub accept_mutex_delay: Msec,
        /// Whether a worker of nginx accepts all waiting connections at once.
        @Status::Ignored("all that wait are accepted"); "multi_accept" EVENTS = "off" => pub multi_accept: Flag,
        /// How many events nginx takes from the kernel at once.
        @Status::Ignored("the runtime decides"); "epoll_events" EVENTS = "512" => pub epoll_events: Number,
        /// How many operations on files nginx has under way.
        @Status::Ignored("files are read without a queue"); "worker_aio_requests" EVENTS = "32" => pub aio_requests: Number,
    }
}

const COMMANDS: &[Directive] = &[
    Directive {
        name: "worker_connections",
        contexts: Contexts::EVENTS,
        once: true,
        syntax: "number",
        default: "512",
        doc: "How many connections of clients a worker may have, subscribers included. When few are \
              left, connections that wait for a request are ended to make room; when none is, new clients are closed \
              at once. Both are logged.",
        file: file!(),
        apply: worker_connections,
        ..Directive::BASE
    },
    Directive {
        name: "use",
        contexts: Contexts::EVENTS,
        once: true,
        syntax: "method",
        status: Status::Ignored("it is always epoll"),
        doc: "How nginx asks the kernel for events.",
        file: file!(),
        apply: use_method,
        ..Directive::BASE
    },
    Directive {
        name: "debug_connection",
        contexts: Contexts::EVENTS,
        args: Args::ONE,
        syntax: "address | CIDR | unix:",
        status: Status::Ignored("there is no debug log"),
        doc: "Writes a debug log for some clients, in an nginx that was built for that. Others warn, and look at no address.",
        file: file!(),
        apply: debug_connection,
        ..Directive::BASE
    },
];

/// How many connections a worker may have.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// The bound.
    pub max: usize,
}

impl Section for Connections {
    type Raw = Option<usize>;

    fn merge(raw: &Option<usize>, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self { max: raw.or_else(|| parent.map(|parent| parent.max)).unwrap_or(512) }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn worker_connections(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let number = parse_number(call.bytes(0))
        .ok_or_else(|| Fault::new(format!("invalid number \"{}\"", call.text(0))).word(0))?;
    *cx.edit::<Connections>() = Some(usize::try_from(number).unwrap_or(usize::MAX));
    Ok(())
}

fn debug_connection(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let message = "\"debug_connection\" is ignored, you need to rebuild nginx using --with-debug option to enable it";
    cx.warn("no-debug-log", message, call);
    Ok(())
}

fn use_method(_: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    match call.bytes(0) {
        b"epoll" => Ok(()),
        _ => Err(Fault::new(format!("invalid event type \"{}\"", call.text(0))).word(0)),
    }
}
