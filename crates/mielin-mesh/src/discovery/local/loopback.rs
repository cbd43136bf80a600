//! Multicast DNS among the nodes of one machine that are bound to loopback addresses. Nothing leaves the machine.
//!
//! `mdns-sd` joins the group on every interface whatever is selected, and the system tells the links so (RFC 3376,
//! RFC 3810). So this speaks for itself, and little: the group is joined on the loopback interface, packets are sent
//! from it with a time to live of 0, which no interface sends, and only what comes from a loopback address is heard.
//! RFC 6762 wants a time to live of 255 (section 11), and probes for names (8.1), which hold a node's id here. All of
//! it goes over IPv4, also for nodes on `::1`: the loopback interface has no route for IPv6 multicast.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::{A, AAAA, PTR, RData, SRV, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{ADDRESSES_MAX, CACHE, Heard, MESH, NODE, SERVICE, Service};

const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);
/// Longest packet (RFC 6762, section 17).
const PACKET_BYTES_MAX: usize = 9_000;
/// Questions and records of a packet that is read. The parser makes room for what the header claims.
const RECORDS_MAX: usize = 64;

/// Questions after the start, and when the first announcement is repeated (RFC 6762, sections 5.2 and 8.3).
const QUESTIONS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
];
const REPEATED: Duration = Duration::from_secs(1);
/// Between two announcements that nobody asked for: two may be lost before a node is forgotten.
const PERIOD: Duration = Duration::from_secs(90);
/// Between two announcements at least, and until the first answer to a question (RFC 6762, section 6).
const APART: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_millis(20);
/// After the system could not say what has come: most of what it complains about passes.
const RECOVERY: Duration = Duration::from_millis(100);

/// This node's part in the discovery on the loopback interface.
pub(super) struct Loopback {
    socket: UdpSocket,
    question: Vec<u8>,
    announcement: Vec<u8>,
    farewell: Vec<u8>,
}

impl Loopback {
    pub(super) fn start(service: &Service) -> io::Result<Loopback> {
        let seconds = u32::try_from(CACHE.as_secs()).unwrap_or(u32::MAX);
        let written = |packet: simple_dns::Result<Vec<u8>>| packet.map_err(io::Error::other);
        Ok(Loopback {
            socket: socket()?,
            question: written(question())?,
            announcement: written(announcement(service, seconds))?,
            farewell: written(announcement(service, 0))?,
        })
    }

    /// Says where this node is, and hands on what is heard, until it is dropped. Drops what there is no room for.
    pub(super) async fn run(&self, tell: mpsc::Sender<Heard>) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut turns = Turns::new(Instant::now());
        let mut complained = false;
        loop {
            tokio::select! {
                () = sleep_until(turns.next()) => {
                    let now = Instant::now();
                    if turns.asks(now) {
                        self.send(&self.question).await;
                    }
                    if turns.announces(now) {
                        self.send(&self.announcement).await;
                    }
                }
                received = self.socket.recv_from(&mut buffer) => {
                    let said = match received {
                        Ok((length, from)) if from.ip().is_loopback() => read(&buffer[..length]),
                        Ok(_) => None,
                        Err(error) => {
                            if !std::mem::replace(&mut complained, true) {
                                tracing::warn!(%error, "multicast DNS is not heard; trying on");
                            }
                            sleep(RECOVERY).await;
                            None
                        }
                    };
                    match said {
                        Some(Said::Question) => turns.asked(Instant::now()),
                        Some(Said::Node(heard)) => drop(tell.try_send(heard)),
                        None => {}
                    }
                }
            }
        }
    }

    /// Says that the node goes, and ends.
    pub(super) async fn close(self) {
        self.send(&self.farewell).await;
    }

    async fn send(&self, packet: &[u8]) {
        if let Err(error) = self.socket.send_to(packet, GROUP).await {
            tracing::debug!(%error, "multicast DNS was not sent");
        }
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Every node has one, and so have other programs.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // At the group and not at any address: what is sent to this machine alone does not come here.
    socket.bind(&GROUP.into())?;
    let IpAddr::V4(group) = GROUP.ip() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)?;
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(0)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// When questions and announcements are due.
struct Turns {
    started: Instant,
    questions: usize,
    announcements: u32,
    announced: Option<Instant>,
    due: Instant,
}

impl Turns {
    fn new(now: Instant) -> Turns {
        Turns {
            started: now,
            questions: 0,
            announcements: 0,
            announced: None,
            due: now,
        }
    }

    fn question(&self) -> Option<Instant> {
        let after = QUESTIONS.get(self.questions)?;
        Some(self.started + *after)
    }

    fn next(&self) -> Instant {
        self.question().map_or(self.due, |at| at.min(self.due))
    }

    fn asks(&mut self, now: Instant) -> bool {
        let due = self.question().is_some_and(|at| at <= now);
        self.questions += usize::from(due);
        due
    }

    fn announces(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now
            + if self.announcements == 0 {
                REPEATED
            } else {
                PERIOD
            };
        self.announcements = self.announcements.saturating_add(1);
        self.announced = Some(now);
        true
    }

    /// Somebody wants to know: a little later, so that one announcement answers all who ask now.
    fn asked(&mut self, now: Instant) {
        let earliest = self
            .announced
            .map_or(now, |at| (at + APART).max(now + ANSWER));
        self.due = self.due.min(earliest);
    }
}

fn question() -> simple_dns::Result<Vec<u8>> {
    let mut packet = Packet::new_query(0);
    let asked = QTYPE::TYPE(TYPE::PTR);
    let question = Question::new(service_name()?, asked, QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec_compressed()
}

/// All records of a node (RFC 6763, section 12.1); they say that it goes when `seconds` is 0.
fn announcement(service: &Service, seconds: u32) -> simple_dns::Result<Vec<u8>> {
    let instance = format!("{}.{SERVICE}", service.name());
    let host = format!("{}.mielin.local.", service.name());
    let (instance, host) = (name(&instance)?, name(&host)?);
    let server = SRV {
        priority: 0,
        weight: 0,
        port: service.bound.port(),
        target: host.clone(),
    };
    let mut text = TXT::new();
    for (key, value) in [(MESH, &service.mesh), (NODE, &service.node)] {
        text.add_attribute(key, Some(value.as_bytes()))?;
    }
    let address = match service.bound.ip() {
        IpAddr::V4(ip) => RData::A(A::from(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA::from(ip)),
    };
    let mut packet = Packet::new_reply(0);
    packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    let record = |name, data| ResourceRecord::new(name, CLASS::IN, seconds, data);
    // The first is shared by all nodes; the others are this one's own (RFC 6762, section 10.2).
    let shared = record(service_name()?, RData::PTR(PTR(instance.clone())));
    packet.answers.push(shared);
    for (name, data) in [
        (&instance, RData::SRV(server)),
        (&instance, RData::TXT(text)),
        (&host, address),
    ] {
        let own = record(name.clone(), data).with_cache_flush(true);
        packet.answers.push(own);
    }
    packet.build_bytes_vec_compressed()
}

#[derive(Debug)]
enum Said {
    Question,
    Node(Heard),
}

/// What a packet says about the service, if anything.
fn read(bytes: &[u8]) -> Option<Said> {
    // The counts of the header (RFC 1035, 4.1.1).
    let counts = bytes.get(4..12)?.chunks_exact(2);
    let claimed: usize = counts
        .map(|c| usize::from(c[0]) << 8 | usize::from(c[1]))
        .sum();
    if claimed > RECORDS_MAX {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    let service = service_name().ok()?;
    if !packet.has_flags(PacketFlag::RESPONSE) {
        let mut questions = packet.questions.iter();
        let asks = questions.any(|question| question.qname == service);
        return asks.then_some(Said::Question);
    }
    node(&packet, &service).map(Said::Node)
}

/// The first node that a response names.
fn node(packet: &Packet, service: &Name) -> Option<Heard> {
    let records = || packet.answers.iter().chain(&packet.additional_records);
    let (instance, server, seconds) = records().find_map(|record| match &record.rdata {
        RData::SRV(server) if record.name.is_subdomain_of(service) => {
            Some((&record.name, server, record.ttl))
        }
        _ => None,
    })?;
    let fullname = instance.to_string();
    if seconds == 0 {
        return Some(Heard::Gone { fullname });
    }
    let text = records().find_map(|record| match &record.rdata {
        RData::TXT(text) if record.name == *instance => Some(text),
        _ => None,
    })?;
    let property = |wanted: &str| {
        let mut properties = text.iter_raw();
        let value = properties.find_map(|(key, value)| (key == wanted.as_bytes()).then_some(value));
        String::from_utf8(value??.to_vec()).ok()
    };
    let addresses = records().filter(|record| record.name == server.target);
    let addresses = addresses.filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::from(a.address.to_be_bytes())),
        RData::AAAA(aaaa) => Some(IpAddr::from(aaaa.address.to_be_bytes())),
        _ => None,
    });
    Some(Heard::Here {
        fullname,
        mesh: property(MESH)?,
        node: property(NODE)?,
        addresses: addresses
            .filter(|ip| ip.is_loopback() && server.port != 0)
            .map(|ip| SocketAddr::new(ip, server.port))
            .take(ADDRESSES_MAX)
            .collect(),
    })
}

fn service_name() -> simple_dns::Result<Name<'static>> {
    name(SERVICE)
}

/// A name that is written with a dot at its end.
fn name(text: &str) -> simple_dns::Result<Name<'_>> {
    Name::new(text.trim_end_matches('.'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mielin_fuzz::{Seed, Target};

    use super::*;

    fn service(bound: &str) -> Service {
        Service {
            bound: bound.parse().unwrap(),
            mesh: "ab".repeat(16),
            node: "cd".repeat(32),
        }
    }

    fn heard(bytes: &[u8]) -> Option<Heard> {
        match read(bytes)? {
            Said::Node(heard) => Some(heard),
            Said::Question => panic!("a question"),
        }
    }

    #[test]
    fn a_node_is_read_as_it_was_said() {
        for bound in ["127.0.0.1:9000", "[::1]:9001"] {
            let service = service(bound);
            let said = heard(&announcement(&service, 300).unwrap());
            let Some(Heard::Here {
                fullname,
                mesh,
                node,
                addresses,
            }) = said
            else {
                panic!("{said:?}");
            };
            assert_eq!((mesh, node), (service.mesh.clone(), service.node.clone()));
            assert_eq!(addresses, [service.bound]);
            let gone = heard(&announcement(&service, 0).unwrap());
            assert!(matches!(gone, Some(Heard::Gone { fullname: name }) if name == fullname));
        }
        assert!(matches!(read(&question().unwrap()), Some(Said::Question)));
    }

    #[tokio::test]
    async fn an_error_is_no_end() {
        let service = service("127.0.0.1:9000");
        // Whoever has connected is told that nobody is there.
        let there = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = there.local_addr().unwrap();
        drop(there);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let here = socket.local_addr().unwrap();
        socket.connect(address).await.unwrap();
        let loopback = Loopback {
            socket,
            question: question().unwrap(),
            announcement: announcement(&service, 300).unwrap(),
            farewell: Vec::new(),
        };
        let (tell, mut told) = mpsc::channel(1);
        let errors_and_news = async {
            for _ in 0..20 {
                let _ = loopback.socket.send(b"is anybody there?").await;
                tokio::task::yield_now().await;
            }
            let there = UdpSocket::bind(address).await.unwrap();
            there
                .send_to(&announcement(&service, 300).unwrap(), here)
                .await
                .unwrap();
            told.recv().await
        };
        let deadline = Duration::from_secs(60);
        tokio::select! {
            () = loopback.run(tell) => panic!("it has ended"),
            heard = tokio::time::timeout(deadline, errors_and_news) => {
                assert!(matches!(heard, Ok(Some(Heard::Here { .. }))), "{heard:?}");
            }
        }
    }

    #[test]
    fn addresses_elsewhere_and_counts_that_only_claim_are_not_believed() {
        let said = announcement(&service("10.0.0.1:9000"), 300).unwrap();
        let none =
            matches!(heard(&said), Some(Heard::Here { addresses, .. }) if addresses.is_empty());
        assert!(none);
        let mut claims = question().unwrap();
        claims[6] = 0xff;
        assert!(read(&claims).is_none());
    }

    /// Packets that any program of the machine may have sent.
    const LOOPBACK: Target = Target {
        name: "loopback",
        mutations: 20_000,
        fixed_bytes: 64 << 10,
        bytes_per_byte: 32,
        run: |bytes| {
            let said = read(bytes);
            if let Some(Said::Node(Heard::Here { addresses, .. })) = &said {
                assert!(addresses.len() <= ADDRESSES_MAX);
                let near = |address: &SocketAddr| address.ip().is_loopback() && address.port() != 0;
                assert!(addresses.iter().all(near));
            }
            said.is_some()
        },
        seeds: || {
            let said = |bound, seconds| announcement(&service(bound), seconds).unwrap();
            let here = said("127.0.0.1:9000", 300);
            let mut claims = question().unwrap();
            claims[6] = 0xff;
            let mut other = question().unwrap();
            other[13] = b'x';
            vec![
                Seed::good("question", question().unwrap()),
                Seed::good("over-ipv6", said("[::1]:9001", 300)),
                Seed::good("elsewhere", said("10.0.0.1:9000", 300)),
                Seed::good("farewell", said("127.0.0.1:9000", 0)),
                Seed::bad("cut-off", &here[..here.len() - 1]),
                Seed::bad("claims-many-records", claims),
                Seed::bad("other-service", other),
                Seed::good("node", here),
            ]
        },
    };

    #[test]
    fn loopback() {
        LOOPBACK.replay();
    }

    #[test]
    fn questions_are_answered_at_most_once_a_second() {
        let start = Instant::now();
        let (mut turns, mut asked, mut announced) = (Turns::new(start), vec![], vec![]);
        while turns.next() < start + Duration::from_secs(100) {
            let now = turns.next();
            let passed = (now - start).as_millis();
            if turns.asks(now) {
                asked.push(passed);
            }
            if turns.announces(now) {
                announced.push(passed);
            }
        }
        assert_eq!(asked, [0, 1_000, 3_000]);
        assert_eq!(announced, [0, 1_000, 91_000]);
        let now = start + Duration::from_secs(100);
        turns.asked(now);
        turns.asked(now);
        assert_eq!(turns.next(), now + ANSWER);
        assert!(turns.announces(now + ANSWER));
        turns.asked(now + 2 * ANSWER);
        assert_eq!(turns.next(), now + ANSWER + APART);
    }
}
