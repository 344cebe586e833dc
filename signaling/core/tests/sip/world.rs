//! A core with a phone, a mixer and a store around it, and a clock that only we move.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use signaling_core::effect::{AdminReply, Count, Effect, LogLine, MixerRequest, StoreChange};
use signaling_core::input::{
    AdminId, AdminRequest, Flow, Input, MixerEvent, MixerEventKind, MixerRefusal, MixerReply, MixerRequestId,
    Transport,
};
use signaling_core::record::{ConferenceRecord, DialogRecord};
use signaling_core::srtp::{KeySeed, SrtpPolicies, SrtpPolicy};
use signaling_core::time::{Timestamp, WallTime};
use signaling_core::{Core, CoreConfig};

pub(crate) const MIXER: &str = "http://mixer";

/// A sent message: where to, and its text.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) flow: Flow,
    pub(crate) text: String,
}

impl Sent {
    /// Status of a response, 0 for requests.
    pub(crate) fn status(&self) -> u16 {
        let rest = self.text.strip_prefix("SIP/2.0 ").unwrap_or("0");
        rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// First value of a header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// To tag.
    pub(crate) fn tag(&self) -> &str {
        self.header("To")
            .and_then(|to| to.split(";tag=").nth(1))
            .unwrap_or("")
    }
}

/// What a mixer knows and how it behaves.
#[derive(Debug, Default)]
pub(crate) struct FakeMixer {
    pub(crate) conferences: BTreeMap<String, BTreeMap<String, Media>>,
    /// Requests wait here while `held`.
    pub(crate) pending: VecDeque<(MixerRequestId, MixerRequest)>,
    pub(crate) held: bool,
    /// The next matching requests are refused.
    pub(crate) refusals: VecDeque<(&'static str, MixerRefusal)>,
    pub(crate) log: Vec<MixerRequest>,
    next_port: u16,
}

pub(crate) type Media = Option<signaling_core::effect::MediaDescription>;

pub(crate) fn kind(request: &MixerRequest) -> &'static str {
    match request {
        MixerRequest::CreateConference { .. } => "create_conference",
        MixerRequest::RemoveConference { .. } => "remove_conference",
        MixerRequest::Lock { .. } => "lock",
        MixerRequest::CreateEndpoint { .. } => "create_endpoint",
        MixerRequest::SetMedia { .. } => "set_media",
        MixerRequest::Mute { .. } => "mute",
        MixerRequest::RemoveEndpoint { .. } => "remove_endpoint",
    }
}

impl FakeMixer {
    fn answer(&mut self, request: &MixerRequest) -> MixerReply {
        self.log.push(request.clone());
        if let Some((expected, reason)) = self.refusals.front().copied()
            && expected == kind(request)
        {
            self.refusals.pop_front();
            return refused(reason);
        }
        self.perform(request)
            .unwrap_or_else(|| refused(MixerRefusal::NotFound))
    }

    /// None: no such conference or endpoint.
    fn perform(&mut self, request: &MixerRequest) -> Option<MixerReply> {
        match request {
            MixerRequest::CreateConference { conference, talkers } => {
                assert_eq!(*talkers, Some(4), "as configured");
                let former = self.conferences.insert(conference.clone(), BTreeMap::new());
                assert!(former.is_none(), "{conference} made twice");
            }
            MixerRequest::RemoveConference { conference } => {
                self.conferences.remove(conference)?;
            }
            MixerRequest::Lock { conference, .. } => {
                self.conferences.get(conference)?;
            }
            MixerRequest::CreateEndpoint {
                conference,
                endpoint,
                media,
            } => {
                let former = self
                    .conferences
                    .get_mut(conference)?
                    .insert(endpoint.clone(), media.clone());
                assert!(former.is_none(), "{endpoint} made twice");
                self.next_port += 2;
                let local = ([192, 0, 2, 1], 20000 + self.next_port).into();
                return Some(MixerReply::EndpointCreated { local });
            }
            MixerRequest::SetMedia {
                conference,
                endpoint,
                media,
            } => {
                *self.conferences.get_mut(conference)?.get_mut(endpoint)? = Some(media.clone());
            }
            MixerRequest::Mute {
                conference, endpoint, ..
            } => {
                self.conferences.get(conference)?.get(endpoint)?;
            }
            MixerRequest::RemoveEndpoint { conference, endpoint } => {
                self.conferences.get_mut(conference)?.remove(endpoint)?;
            }
        }
        Some(MixerReply::Done)
    }

    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.log.iter().map(kind).collect()
    }
}

pub(crate) fn refused(reason: MixerRefusal) -> MixerReply {
    MixerReply::Refused {
        reason,
        detail: "as told".to_owned(),
        retry_after_s: Some(7),
    }
}

pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) now: Timestamp,
    pub(crate) mixer: FakeMixer,
    pub(crate) sent: Vec<Sent>,
    pub(crate) conferences: BTreeMap<String, ConferenceRecord>,
    pub(crate) dialogs: BTreeMap<String, DialogRecord>,
    pub(crate) counts: Vec<Count>,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) replies: Vec<(AdminId, AdminReply)>,
}

pub(crate) fn config() -> CoreConfig {
    CoreConfig {
        domain: "localhost".to_owned(),
        trusted: vec![("198.51.100.0".parse().unwrap(), 24)],
        auto_create: true,
        talkers: Some(4),
        owner: "test".to_owned(),
        learn_source: Vec::new(),
        calls_max: 100,
        srtp: SrtpPolicies {
            default: SrtpPolicy::Offer,
            off: Vec::new(),
            require: Vec::new(),
        },
        seed: [9; 32],
        key_seed: KeySeed([10; 32]),
    }
}

pub(crate) fn udp() -> Flow {
    Flow {
        transport: Transport::Udp,
        local: "192.0.2.1:5060".parse().unwrap(),
        remote: "198.51.100.7:5060".parse().unwrap(),
        connection: 0,
    }
}

pub(crate) fn tcp() -> Flow {
    Flow {
        transport: Transport::Tcp,
        remote: "198.51.100.7:41000".parse().unwrap(),
        connection: 1,
        ..udp()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: CoreConfig) -> Self {
        let mut world = Self {
            core: Core::new(config),
            now: Timestamp(1_000_000_000),
            mixer: FakeMixer::default(),
            sent: Vec::new(),
            conferences: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            counts: Vec::new(),
            logs: Vec::new(),
            replies: Vec::new(),
        };
        world.input(Input::Wall(WallTime(1_000)));
        world.health(Some("one"));
        world
    }

    pub(crate) fn health(&mut self, instance: Option<&str>) {
        let instance = instance.map(str::to_owned);
        self.input(Input::MixerHealth {
            mixer: MIXER.to_owned(),
            instance,
        });
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.pump();
    }

    fn pump(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Send { flow, bytes } => {
                    let text = bytes.iter().map(|&byte| char::from(byte)).collect();
                    self.sent.push(Sent { flow, text });
                }
                Effect::Mixer { id, request, .. } => {
                    self.mixer.pending.push_back((id, request));
                    if !self.mixer.held {
                        self.release();
                    }
                }
                Effect::Store(change) => self.store(change),
                Effect::AdminReply { id, reply } => self.replies.push((id, reply)),
                Effect::Log(line) => self.logs.push(line),
                Effect::Count(count) => self.counts.push(count),
            }
        }
    }

    fn store(&mut self, change: StoreChange) {
        match change {
            StoreChange::SaveConference(record) => {
                self.conferences.insert(record.conference.clone(), record);
            }
            StoreChange::DeleteConference { conference } => {
                self.conferences.remove(&conference);
            }
            StoreChange::SaveDialog(record) => {
                self.dialogs.insert(record.endpoint.clone(), record);
            }
            StoreChange::DeleteDialog { endpoint } => {
                self.dialogs.remove(&endpoint);
            }
        }
    }

    /// The mixer answers one waiting request.
    pub(crate) fn release_one(&mut self) -> Option<&'static str> {
        let (id, request) = self.mixer.pending.pop_front()?;
        let reply = self.mixer.answer(&request);
        self.core.handle(self.now, Input::MixerReply { id, reply });
        self.pump();
        Some(kind(&request))
    }

    /// The mixer answers all waiting requests and those that follow from the answers.
    pub(crate) fn release(&mut self) {
        while self.release_one().is_some() {}
    }

    /// A message comes in.
    pub(crate) fn receive(&mut self, flow: Flow, text: &str) {
        self.receive_bytes(flow, Bytes::from(text.to_owned()));
    }

    pub(crate) fn receive_bytes(&mut self, flow: Flow, bytes: Bytes) {
        self.input(Input::Sip { flow, bytes });
    }

    /// A message comes in over UDP; what goes out is returned.
    pub(crate) fn exchange(&mut self, text: &str) -> Vec<Sent> {
        self.sent.clear();
        self.receive(udp(), text);
        std::mem::take(&mut self.sent)
    }

    /// Time passes; what goes out meanwhile is returned.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Sent> {
        self.sent.clear();
        let end = self.now.after(time);
        while let Some(deadline) = self.core.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.core.handle_timeout(self.now);
            self.pump();
        }
        self.now = end;
        std::mem::take(&mut self.sent)
    }

    pub(crate) fn event(&mut self, endpoint: &str, kind: MixerEventKind) {
        self.input(Input::MixerEvent(MixerEvent {
            mixer: MIXER.to_owned(),
            conference: String::new(),
            endpoint: endpoint.to_owned(),
            kind,
        }));
    }

    pub(crate) fn admin(&mut self, request: AdminRequest) -> Option<AdminReply> {
        let id = AdminId(77);
        self.replies.clear();
        self.input(Input::Admin { id, request });
        self.replies.first().map(|(_, reply)| reply.clone())
    }

    /// The one endpoint there is.
    pub(crate) fn endpoint(&self) -> String {
        let all: Vec<_> = self.mixer.conferences.values().flat_map(BTreeMap::keys).collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }

    pub(crate) fn media(&self, endpoint: &str) -> Media {
        self.mixer
            .conferences
            .values()
            .find_map(|members| members.get(endpoint))
            .cloned()
            .flatten()
    }

    /// Left causes counted so far.
    pub(crate) fn left(&self) -> Vec<&'static str> {
        let causes = self.counts.iter().filter_map(|count| match count {
            Count::Left { cause } => Some(*cause),
            _ => None,
        });
        causes.collect()
    }

    /// After everything is over and timers have run out nothing may be left, here or elsewhere.
    pub(crate) fn assert_clean(&mut self) {
        self.pass(Duration::from_secs(70));
        let status = self.core.status();
        assert_eq!(
            (
                status.conferences,
                status.participants,
                status.transactions,
                status.dialogs
            ),
            (0, 0, 0, 0),
            "(conferences, participants, transactions, dialogs)"
        );
        assert_eq!(self.core.pending(), (0, 0), "(timers, mixer requests)");
        assert_eq!(self.core.next_deadline(), None);
        assert!(self.mixer.conferences.is_empty(), "{:?}", self.mixer.conferences);
        assert!(self.conferences.is_empty(), "{:?}", self.conferences);
        assert!(self.dialogs.is_empty(), "{:?}", self.dialogs);
    }
}

/// A phone's side of one dialog.
#[derive(Debug, Clone)]
pub(crate) struct Phone {
    pub(crate) call_id: String,
    pub(crate) target: String,
    pub(crate) cseq: u32,
    pub(crate) to_tag: String,
    pub(crate) branch: u32,
    pub(crate) extra: String,
}

pub(crate) const OFFER: &str = "v=0\r\no=p 1 1 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n\
     m=audio 6000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n";

impl Phone {
    pub(crate) fn new(call_id: &str) -> Self {
        Self {
            call_id: call_id.to_owned(),
            target: "sip:conf-42@192.0.2.1".to_owned(),
            cseq: 0,
            to_tag: String::new(),
            branch: 0,
            extra: String::new(),
        }
    }

    pub(crate) fn to(call_id: &str, target: &str) -> Self {
        Self {
            target: target.to_owned(),
            ..Self::new(call_id)
        }
    }

    /// Any request; CSeq goes up except for ACK and CANCEL.
    pub(crate) fn request(&mut self, method: &str, extra: &str, body: &str) -> String {
        if !matches!(method, "ACK" | "CANCEL") {
            self.cseq += 1;
        }
        if method != "CANCEL" {
            self.branch += 1;
        }
        let tag = if self.to_tag.is_empty() {
            String::new()
        } else {
            format!(";tag={}", self.to_tag)
        };
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK{call}{branch}\r\n\
             Max-Forwards: 70\r\nFrom: \"Alice\" <sip:alice@example.com>;tag=a{call}\r\nTo: <{target}>{tag}\r\n\
             Call-ID: {call}\r\nCSeq: {cseq} {method}\r\nContact: <sip:alice@198.51.100.7:5062>\r\n{more}{extra}\
             Content-Length: {length}\r\n\r\n{body}",
            target = self.target,
            call = self.call_id,
            branch = self.branch,
            cseq = self.cseq,
            more = self.extra,
            length = body.len(),
        )
    }

    pub(crate) fn with_sdp(&mut self, method: &str, sdp: &str) -> String {
        let kind = if sdp.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        self.request(method, kind, sdp)
    }

    pub(crate) fn invite(&mut self) -> String {
        self.with_sdp("INVITE", OFFER)
    }

    /// INVITE, 200, ACK; returns the 200.
    pub(crate) fn call(&mut self, world: &mut World) -> Sent {
        let invite = self.invite();
        self.complete(world, &invite)
    }

    pub(crate) fn complete(&mut self, world: &mut World, invite: &str) -> Sent {
        let sent = world.exchange(invite);
        let ok = sent.iter().find(|sent| sent.status() == 200);
        let ok = ok.unwrap_or_else(|| panic!("no 200 in {sent:#?}")).clone();
        self.to_tag = ok.tag().to_owned();
        let ack = self.request("ACK", "", "");
        assert!(world.exchange(&ack).is_empty());
        ok
    }

    pub(crate) fn hang_up(&mut self, world: &mut World) {
        let bye = self.request("BYE", "", "");
        let sent = world.exchange(&bye);
        assert_eq!(
            sent.iter().map(Sent::status).collect::<Vec<_>>(),
            [200],
            "{sent:#?}"
        );
    }
}

/// Statuses of responses in order.
pub(crate) fn statuses(sent: &[Sent]) -> Vec<u16> {
    sent.iter().map(Sent::status).collect()
}

/// The 200 to a request of ours.
pub(crate) fn ok_to(request: &Sent) -> String {
    let fields = ["Via", "From", "To", "Call-ID", "CSeq"];
    let lines: String = fields
        .iter()
        .map(|name| format!("{name}: {}\r\n", request.header(name).unwrap()))
        .collect();
    format!("SIP/2.0 200 OK\r\n{lines}Content-Length: 0\r\n\r\n")
}
