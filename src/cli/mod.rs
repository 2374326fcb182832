//! The command line: nginx's own flags, and `check`, `explain`, `demo`, `directives`.

pub mod demo;
