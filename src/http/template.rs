//! The value of a template for a request.

use bytes::{Bytes, BytesMut};

use super::request::Request;
use crate::config::value::{Part, Template};

impl Request {
    /// The text that a template stands for now.
    pub fn eval(&self, template: &Template) -> Bytes {
        match template.parts() {
            [] => Bytes::new(),
            [part] => self.eval_part(part),
            parts => {
                let mut text = BytesMut::new();
                for part in parts {
                    match part {
                        Part::Literal(literal) => text.extend_from_slice(literal),
                        part => text.extend_from_slice(&self.eval_part(part)),
                    }
                }
                text.freeze()
            }
        }
    }

    fn eval_part(&self, part: &Part) -> Bytes {
        match part {
            Part::Literal(text) => text.clone(),
            Part::Variable(id) => self.variable(*id).unwrap_or_default(),
            Part::Capture(number) => self.capture(usize::from(*number)).unwrap_or_default(),
        }
    }
}
