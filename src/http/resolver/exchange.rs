//! Asking one server: a datagram for each kind of address, and TCP where an answer is too long for that.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::message::{Kind, Question, Reading};

/// What a server says of a name, for each kind. The socket has a port of its own, hears only the server, and each
/// question has a number by chance: who can't see the questions can't answer them.
pub(super) async fn ask(server: SocketAddr, questions: &[(Question<'_>, Vec<u8>)]) -> io::Result<Vec<(Kind, Reading)>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    for (_, message) in questions {
        socket.send(message).await?;
    }
    let mut readings: Vec<(Kind, Reading)> = Vec::with_capacity(questions.len());
    let mut buffer = [0; MAX_DATAGRAM];
    while readings.len() < questions.len() {
        let length = socket.recv(&mut buffer).await?;
        for (question, message) in questions {
            if readings.iter().any(|(kind, _)| *kind == question.kind) {
                continue;
            }
            match question.read(&buffer[..length]) {
                Reading::Foreign => {}
                Reading::Cut => readings.push((question.kind, ask_at_length(server, question, message).await?)),
                reading => readings.push((question.kind, reading)),
            }
        }
    }
    Ok(readings)
}

/// Longer ones come only to who has asked for them.
const MAX_DATAGRAM: usize = 4096;

async fn ask_at_length(server: SocketAddr, question: &Question<'_>, message: &[u8]) -> io::Result<Reading> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    match question.read(&answer) {
        Reading::Foreign | Reading::Cut => Err(io::ErrorKind::InvalidData.into()),
        reading => Ok(reading),
    }
}
