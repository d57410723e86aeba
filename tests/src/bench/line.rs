//! A device's MQTT connection with as little of its own as can be: a load generator must cost less
//! than what it measures.

use super::fleet::Member;
use anyhow::{bail, ensure};
use bytes::BytesMut;
use rumqttc::{
    Connect, ConnectReturnCode, Packet, PingReq, Publish, QoS, Subscribe, SubscribeFilter,
    mqttbytes,
};
use rustls::{ClientConfig, pki_types::ServerName};
use shared::{
    ack::Acks,
    event::{Events, Presence, Tick},
    identity::Tokens,
    limits::MQTT_PACKET,
    topics::{Down, Topic, Up},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Seconds; nothing here is silent for so long.
const KEEP_ALIVE: u16 = 600;

/// A connection over TLS that is subscribed as an agent is.
pub struct Line {
    stream: TlsStream<TcpStream>,
    input: BytesMut,
    output: BytesMut,
    event_topic: String,
    tick_topic: String,
    presence_topic: String,
    pkid: u16,
    /// A wake came while something else was waited for.
    woken: bool,
}

/// # Errors
/// No connection, or nobody there who speaks TLS as it should be.
pub async fn open_tls(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    open_tls_from(Ipv4Addr::LOCALHOST, address, tls).await
}

/// The same from an address of 127.0.0.0/8: a fleet is not behind one peer.
///
/// # Errors
/// As [`open_tls`].
pub async fn open_tls_from(
    own: Ipv4Addr,
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((own, 0)))?;
    let tcp = socket.connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::IpAddress(address.ip().into());
    Ok(TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?)
}

impl Line {
    /// # Errors
    /// The coordinator does not take it.
    pub async fn open(
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
        member: &Member,
    ) -> anyhow::Result<Self> {
        Self::open_from(Ipv4Addr::LOCALHOST, address, tls, &member.tokens).await
    }

    /// The same from an address of its own.
    ///
    /// # Errors
    /// As [`Line::open`].
    pub async fn open_from(
        own: Ipv4Addr,
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
        tokens: &Tokens,
    ) -> anyhow::Result<Self> {
        let topic = |up| Topic::Up(tokens.organization.clone(), tokens.device, up).to_string();
        let mut line = Self {
            stream: open_tls_from(own, address, tls).await?,
            input: BytesMut::new(),
            output: BytesMut::new(),
            event_topic: topic(Up::Event),
            tick_topic: topic(Up::Progress),
            presence_topic: topic(Up::Presence),
            pkid: 0,
            woken: false,
        };
        let id = tokens.device.to_string();
        let mut connect = Connect::new(&id);
        connect.keep_alive = KEEP_ALIVE;
        connect.set_login(&id, &tokens.mqtt.token);
        line.send(&Packet::Connect(connect)).await?;
        match line.packet().await? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {}
            other => bail!("CONNECT was answered with {other:?}"),
        }
        let filters = [Down::Wake, Down::Ack].map(|down| {
            let topic = Topic::Down(tokens.organization.clone(), tokens.device, down);
            SubscribeFilter::new(topic.to_string(), QoS::AtMostOnce)
        });
        let mut subscribe = Subscribe::new_many(filters);
        subscribe.pkid = 1;
        line.send(&Packet::Subscribe(subscribe)).await?;
        while !matches!(line.packet().await?, Packet::SubAck(_)) {}
        Ok(line)
    }

    /// Sends milestones in one message and waits for what the coordinator says of them.
    ///
    /// # Errors
    /// The connection ends.
    pub async fn report(&mut self, events: &Events) -> anyhow::Result<Acks> {
        let topic = self.event_topic.clone();
        self.publish(&topic, serde_json::to_vec(events)?).await?;
        loop {
            if let Packet::Publish(publish) = self.packet().await? {
                if publish.topic.ends_with("/ack") {
                    return Ok(serde_json::from_slice(&publish.payload)?);
                }
                self.woken |= publish.topic.ends_with("/wake");
            }
        }
    }

    /// Says that the device is there; returns once that is committed.
    ///
    /// # Errors
    /// The connection ends.
    pub async fn present(&mut self, presence: &Presence) -> anyhow::Result<()> {
        let topic = self.presence_topic.clone();
        self.publish(&topic, serde_json::to_vec(presence)?).await?;
        loop {
            match self.packet().await? {
                Packet::PubAck(_) => return Ok(()),
                Packet::Publish(publish) => self.woken |= publish.topic.ends_with("/wake"),
                _ => {}
            }
        }
    }

    /// Until the coordinator says that there is something to fetch.
    ///
    /// # Errors
    /// The connection ends.
    pub async fn wake(&mut self) -> anyhow::Result<()> {
        while !std::mem::take(&mut self.woken) {
            if let Packet::Publish(publish) = self.packet().await? {
                self.woken |= publish.topic.ends_with("/wake");
            }
        }
        Ok(())
    }

    async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> anyhow::Result<()> {
        self.pkid = self.pkid % 1000 + 1;
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        publish.pkid = self.pkid;
        self.send(&Packet::Publish(publish)).await
    }

    /// # Errors
    /// The connection ends.
    pub async fn tick(&mut self, tick: &Tick) -> anyhow::Result<()> {
        let publish = Publish::new(&self.tick_topic, QoS::AtMostOnce, serde_json::to_vec(tick)?);
        self.send(&Packet::Publish(publish)).await
    }

    /// Returns once everything sent before has been read and handled.
    ///
    /// # Errors
    /// The connection ends.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        PingReq.write(&mut self.output)?;
        self.flush().await?;
        loop {
            match self.packet().await? {
                Packet::PingResp => return Ok(()),
                Packet::Publish(publish) => self.woken |= publish.topic.ends_with("/wake"),
                _ => {}
            }
        }
    }

    async fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        packet.write(&mut self.output, MQTT_PACKET)?;
        self.flush().await
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(self.stream.flush().await?)
    }

    async fn packet(&mut self) -> anyhow::Result<Packet> {
        loop {
            match Packet::read(&mut self.input, MQTT_PACKET) {
                Ok(packet) => return Ok(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let count = self.stream.read_buf(&mut self.input).await?;
            ensure!(count > 0, "the coordinator ended the connection");
        }
    }
}
