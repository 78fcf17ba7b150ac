use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;

use tokio::net::TcpListener;

use crate::StartError;
use crate::data::Data;

/// The file in the data directory that holds the port of S3, which is part of every presigned URL.
const S3_PORT_FILE: &str = "s3.port";

/// Ports that no operating system gives to outgoing connections by default, so that they are still free when a stack
/// with kept data starts again.
const LASTING_PORTS: Range<u16> = 15_000..30_000;

pub(crate) struct Ports {
    pub(crate) api: TcpListener,
    pub(crate) dynamodb: TcpListener,
    pub(crate) s3: TcpListener,
    pub(crate) sqs: TcpListener,
    pub(crate) bedrock: TcpListener,
}

impl Ports {
    /// Opens the port of the API, or any free port if it is 0. The services get the four ports after it where these are
    /// free, so that the same commands work after a restart. S3 gets the port that the data directory remembers.
    pub(crate) async fn open(port: u16, data: &Data) -> Result<Self, StartError> {
        let api = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(StartError::PortTaken(port)),
            bound => bound.map_err(StartError::Listen)?,
        };
        let after = |n: u16| port.checked_add(n).filter(|_| port != 0);
        let lasting = || data.is_kept().then(|| fastrand::u16(LASTING_PORTS));
        let dynamodb = bind([after(1)]).await?;
        let s3 = bind([remembered(data.path()), after(2), lasting(), lasting()]).await?;
        let sqs = bind([after(3)]).await?;
        let bedrock = bind([after(4)]).await?;
        remember(data.path(), &s3)?;
        Ok(Self { api, dynamodb, s3, sqs, bedrock })
    }
}

pub(crate) fn url(listener: &TcpListener) -> Result<String, StartError> {
    listener.local_addr().map(|address| format!("http://{address}")).map_err(StartError::Listen)
}

/// Listens on the first of these ports that is free, or else on any free port.
async fn bind<const N: usize>(ports: [Option<u16>; N]) -> Result<TcpListener, StartError> {
    for port in ports.into_iter().flatten() {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Ok(listener);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(StartError::Listen)
}

fn remembered(data: &Path) -> Option<u16> {
    std::fs::read_to_string(data.join(S3_PORT_FILE)).ok()?.trim().parse().ok()
}

fn remember(data: &Path, s3: &TcpListener) -> Result<(), StartError> {
    let path = data.join(S3_PORT_FILE);
    let port = s3.local_addr().map_err(StartError::Listen)?.port();
    if let Some(before) = remembered(data).filter(|&before| before != port) {
        tracing::warn!(before, port, "the port of S3 was taken, so earlier URLs of pictures do not work");
    }
    std::fs::write(&path, port.to_string()).map_err(|source| StartError::Data { path, source })
}
