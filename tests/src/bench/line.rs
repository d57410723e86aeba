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
    event::{Events, Tick},
    limits::MQTT_PACKET,
    topics::{Down, Topic, Up},
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
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
    pkid: u16,
}

/// # Errors
/// No connection, or nobody there who speaks TLS as it should be.
pub async fn open_tls(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
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
        let tokens = &member.tokens;
        let topic = |up| Topic::Up(tokens.organization.clone(), tokens.device, up).to_string();
        let mut line = Self {
            stream: open_tls(address, tls).await?,
            input: BytesMut::new(),
            output: BytesMut::new(),
            event_topic: topic(Up::Event),
            tick_topic: topic(Up::Progress),
            pkid: 0,
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
        self.pkid = self.pkid % 1000 + 1;
        let payload = serde_json::to_vec(events)?;
        let mut publish = Publish::new(&self.event_topic, QoS::AtLeastOnce, payload);
        publish.pkid = self.pkid;
        self.send(&Packet::Publish(publish)).await?;
        loop {
            if let Packet::Publish(publish) = self.packet().await?
                && publish.topic.ends_with("/ack")
            {
                return Ok(serde_json::from_slice(&publish.payload)?);
            }
        }
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
        while self.packet().await? != Packet::PingResp {}
        Ok(())
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
