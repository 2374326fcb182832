//! Requests as uwsgi and SCGI have them: one packet with names and values, and behind it the body.

/// What is asked of a uwsgi server beside the names and values.
#[derive(Clone, Copy, Debug)]
pub struct Modifiers(pub u8, pub u8);

/// The length of what stands before the names and values of a uwsgi packet.
const UWSGI_HEADER: usize = 4;

/// A packet for a uwsgi server.
#[derive(Debug)]
pub struct Uwsgi(Vec<u8>);

impl Uwsgi {
    /// One without names and values.
    pub fn new(modifiers: Modifiers) -> Self {
        let mut packet = Vec::with_capacity(1024);
        packet.extend_from_slice(&[modifiers.0, 0, 0, modifiers.1]);
        Self(packet)
    }

    /// Adds a name and a value.
    pub fn put(&mut self, name: &[u8], value: &[u8]) {
        for text in [name, value] {
            // A longer one makes the packet too long.
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            self.0.extend_from_slice(&length.to_le_bytes());
            self.0.extend_from_slice(text);
        }
    }

    /// The packet with `last` at its end; an error is the length that is too much for it.
    pub fn finish(mut self, last: &[u8]) -> Result<Vec<u8>, usize> {
        self.0.extend_from_slice(last);
        let length = self.0.len() - UWSGI_HEADER;
        let size = u16::try_from(length).map_err(|_| length)?;
        self.0[1..=2].copy_from_slice(&size.to_le_bytes());
        Ok(self.0)
    }
}

/// A packet for an SCGI server.
#[derive(Debug)]
pub struct Scgi(Vec<u8>);

impl Scgi {
    /// One that tells the length of the body.
    pub fn new(length: u64) -> Self {
        let mut packet = Self(Vec::with_capacity(1024));
        packet.put(b"CONTENT_LENGTH", length.to_string().as_bytes());
        packet
    }

    /// Adds a name and a value.
    pub fn put(&mut self, name: &[u8], value: &[u8]) {
        for text in [name, value] {
            self.0.extend_from_slice(text);
            self.0.push(0);
        }
    }

    /// The packet: a string with its length before it and a comma behind it.
    pub fn finish(self) -> Vec<u8> {
        let mut packet = format!("{}:", self.0.len()).into_bytes();
        packet.extend_from_slice(&self.0);
        packet.push(b',');
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets() {
        let mut packet = Uwsgi::new(Modifiers(5, 9));
        packet.put(b"A", b"bc");
        packet.put(b"D", b"");
        assert_eq!(packet.finish(b"!").unwrap(), b"\x05\x0d\0\x09\x01\0A\x02\0bc\x01\0D\0\0!");
        let mut packet = Uwsgi::new(Modifiers(0, 0));
        packet.put(b"A", &[b'x'; 65_530]);
        assert_eq!(packet.finish(b"").map(|packet| packet.len()), Ok(65_539));
        let mut packet = Uwsgi::new(Modifiers(0, 0));
        packet.put(b"A", &[b'x'; 70_000]);
        assert_eq!(packet.finish(b"y"), Err(70_006));
        let mut packet = Scgi::new(27);
        packet.put(b"SCGI", b"1");
        assert_eq!(packet.finish(), b"25:CONTENT_LENGTH\x0027\0SCGI\x001\0,");
    }
}
