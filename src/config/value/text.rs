//! Words taken as they are: texts and paths.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::{Call, Cx, Fault, Value};

/// Any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub Bytes);

impl Deref for Text {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl Value for Text {
    const SYNTAX: &'static str = "string";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self(Bytes::copy_from_slice(call.bytes(0))))
    }

    fn from_default(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

/// A path; a relative one hangs on the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(pub Arc<std::path::Path>);

impl Deref for Path {
    type Target = std::path::Path;

    fn deref(&self) -> &std::path::Path {
        &self.0
    }
}

impl Value for Path {
    const SYNTAX: &'static str = "path";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self(cx.options().full_path(&call.text(0)).into()))
    }

    fn from_default(text: &'static str) -> Self {
        Self(PathBuf::from(text).into())
    }
}

/// A path; a relative one hangs on the folder of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfPath(pub Arc<std::path::Path>);

impl Deref for ConfPath {
    type Target = std::path::Path;

    fn deref(&self) -> &std::path::Path {
        &self.0
    }
}

impl Value for ConfPath {
    const SYNTAX: &'static str = "file";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self(cx.options().conf_path(&call.text(0)).into()))
    }

    fn from_default(text: &'static str) -> Self {
        Self(PathBuf::from(text).into())
    }
}
