//! Downloads of an image as agents make them, a block at a time, by many at once; and nginx, to compare with.

use super::{http, line::open_tls, machine};
use crate::coordinator::Coordinator;
use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use rustls::ClientConfig;
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that an agent asks for at a time.
const BLOCK: u64 = 1 << 20;
/// Read at a time.
const BUFFER: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// Where an image is, and who asks for it: a connection a token.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    pub address: SocketAddr,
    pub path: String,
    pub tokens: Vec<&'a str>,
    /// Bytes of the image, blocks without a rest.
    pub size: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Fetched {
    pub bytes: f64,
    pub seconds: f64,
}

/// Has everybody fetch the image, block by block and from the beginning again, until `time` is over.
///
/// # Errors
/// An answer that is not the block that was asked for.
pub async fn fetch(
    source: &Source<'_>,
    tls: &Arc<ClientConfig>,
    time: Duration,
) -> anyhow::Result<Fetched> {
    let opened = source.tokens.iter().map(|_| open_tls(source.address, tls));
    let streams = try_join_all(opened).await?;
    let began = Instant::now();
    let clients = streams.into_iter().zip(&source.tokens).enumerate();
    let clients = clients.map(async |(index, (mut stream, token))| {
        // Not all the same block at a time.
        let mut begin = index as u64 * BLOCK % source.size;
        let (mut bytes, mut buffer) = (0, vec![0; BUFFER]);
        while began.elapsed() < time {
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nRange: bytes={begin}-{}\r\n\r\n",
                source.path,
                source.address,
                begin + BLOCK - 1
            );
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            bytes += block(&mut stream, &mut buffer).await?;
            begin = (begin + BLOCK) % source.size;
        }
        anyhow::Ok(bytes)
    });
    let bytes: u64 = try_join_all(clients).await?.iter().sum();
    Ok(Fetched { bytes: bytes as f64, seconds: began.elapsed().as_secs_f64() })
}

/// Reads a whole answer and returns the bytes of its body, which are not looked at.
async fn block(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut [u8]) -> anyhow::Result<u64> {
    let mut head = Vec::new();
    let (begun, length) = loop {
        let read = stream.read(buffer).await?;
        ensure!(read > 0, "the server ended the connection");
        head.extend_from_slice(&buffer[..read]);
        if let Some((end, length)) = http::head(&head, "206")? {
            break ((head.len() - end) as u64, length as u64);
        }
        ensure!(head.len() < BUFFER, "a head without an end");
    };
    ensure!(length == BLOCK, "{length} bytes instead of a block");
    let mut bytes = begun;
    while bytes < length {
        let read = stream.read(buffer).await?;
        ensure!(read > 0, "the server ended the connection");
        bytes += read as u64;
    }
    Ok(bytes)
}

/// An nginx on the server's core, with the coordinator's key; it ends with this value.
#[derive(Debug)]
pub struct Nginx {
    pub address: SocketAddr,
    process: Child,
}

impl Nginx {
    /// Serves the files of `folder`; `None` where no nginx is installed.
    ///
    /// # Errors
    /// It is there and does not serve.
    pub async fn start(coordinator: &Coordinator, folder: &Path) -> anyhow::Result<Option<Self>> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let (tls, work) = (coordinator.data.join("tls"), folder.display());
        let settings = folder.join("nginx.conf");
        // One process, as the coordinator is. What it may write besides goes below the folder as well.
        let text = format!(
            "daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/nginx.log;
             events {{ worker_connections 512; }}
             http {{
               access_log off; sendfile on; keepalive_requests 1000000;
               client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
               uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
               server {{
                 listen {address} ssl; root {work};
                 ssl_certificate {tls}/certificate.pem; ssl_certificate_key {tls}/key.pem;
                 ssl_protocols TLSv1.3; ssl_session_tickets off;
               }}
             }}\n",
            tls = tls.display(),
        );
        std::fs::write(&settings, text)?;
        let cores = machine::Cores::of_this_machine()?;
        machine::pin(cores.server)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&settings).stdin(Stdio::null()).stderr(Stdio::null());
        let started = command.spawn();
        machine::pin(cores.load)?;
        let process = match started {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            started => started.context("nginx does not start")?,
        };
        let nginx = Self { address, process };
        let began = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            ensure!(began.elapsed() < PATIENCE, "nginx does not listen: see {work}/nginx.log");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(nginx))
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
