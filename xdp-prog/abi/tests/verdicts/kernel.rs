//! The program in the kernel: loaded, given maps, and run on frames by `BPF_PROG_TEST_RUN`.

use std::error::Error;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Once;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, XskMap};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, TestRunResult};
use socket2::{Domain, Socket, Type};
use xdp_abi::{
    ADDRESSES, Action, Address, Bucket, OBJECT, PORTS, PROGRAM, REDIRECTED, SETTINGS, SOURCES, Settings,
    Source, VERDICTS, Verdict, XSKS, port_value,
};

/// Said past the test harness, which would swallow it: nobody shall take a test that did not run for one that passed.
/// Once, as what is missing for one test is missing for all.
pub(crate) fn not_run(why: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let mut uncaptured = io::stderr();
        writeln!(uncaptured, "NOT RUN: xdp verdict tests need {why}").unwrap();
    });
}

const RIGHTS: &str = "root (CAP_BPF, CAP_NET_ADMIN)";

/// `EPERM`, and not the verifier's `EACCES`, which `io::ErrorKind` takes for the same.
fn not_permitted(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.and_then(io::Error::raw_os_error) == Some(1) || error.source().is_some_and(not_permitted)
}

pub(crate) struct Kernel {
    ebpf: Ebpf,
    /// A slot empties when its socket is closed.
    sockets: Vec<Socket>,
}

impl Kernel {
    /// The program with empty maps; `None`, and said so, without the rights to load it.
    pub(crate) fn load() -> Option<Self> {
        let rebuilt = std::env::var_os("MIXMINUS_XDP_OBJECT").map(|path| std::fs::read(path).unwrap());
        let loaded = Ebpf::load(rebuilt.as_deref().unwrap_or(OBJECT))
            .map_err(Into::into)
            .and_then(|mut ebpf| {
                let program: &mut Xdp = ebpf.program_mut(PROGRAM).unwrap().try_into()?;
                program.load()?;
                Ok(ebpf)
            });
        match loaded {
            Ok(ebpf) => Some(Self {
                ebpf,
                sockets: Vec::new(),
            }),
            Err(error) if not_permitted(Box::<dyn Error>::as_ref(&error)) => {
                not_run(RIGHTS);
                None
            }
            Err(error) => panic!("the kernel refuses the program: {error:?}"),
        }
    }

    /// A map as one of aya's types.
    fn map<'a, T>(&'a mut self, name: &str) -> T
    where
        T: TryFrom<&'a mut Map, Error: std::fmt::Debug>,
    {
        self.ebpf.map_mut(name).unwrap().try_into().unwrap()
    }

    pub(crate) fn add_address(&mut self, ip: &str) {
        let key = Address::from(ip.parse::<IpAddr>().unwrap()).to_bytes();
        let mut map: HashMap<&mut MapData, [u8; 16], u8> = self.map(ADDRESSES);
        map.insert(key, 1, 0).unwrap();
    }

    pub(crate) fn remove_address(&mut self, ip: &str) {
        let key = Address::from(ip.parse::<IpAddr>().unwrap()).to_bytes();
        let mut map: HashMap<&mut MapData, [u8; 16], u8> = self.map(ADDRESSES);
        map.remove(&key).unwrap();
    }

    pub(crate) fn set_port(&mut self, port: u16, owner: Option<u16>) {
        let mut map: Array<&mut MapData, u32> = self.map(PORTS);
        map.set(port.into(), owner.map_or(0, port_value), 0).unwrap();
    }

    pub(crate) fn set_settings(&mut self, settings: Settings) {
        let mut map: Array<&mut MapData, [u32; 2]> = self.map(SETTINGS);
        map.set(0, settings.to_words(), 0).unwrap();
    }

    pub(crate) fn bucket(&mut self, source: Source) -> Option<Bucket> {
        let map: HashMap<&mut MapData, [u8; 20], [u64; 2]> = self.map(SOURCES);
        map.get(&source.to_bytes(), 0).ok().map(Bucket::from_words)
    }

    pub(crate) fn set_bucket(&mut self, source: Source, bucket: Bucket) {
        let mut map: HashMap<&mut MapData, [u8; 20], [u64; 2]> = self.map(SOURCES);
        map.insert(source.to_bytes(), bucket.to_words(), 0).unwrap();
    }

    /// Puts a socket into a slot; a test run decides without delivering, so it need not be bound.
    pub(crate) fn open_socket(&mut self, queue: u32) {
        const AF_XDP: i32 = 44;
        const SOCK_RAW: i32 = 3;
        let socket = Socket::new(Domain::from(AF_XDP), Type::from(SOCK_RAW), None).unwrap();
        let mut map: XskMap<&mut MapData> = self.map(XSKS);
        map.set(queue, socket.as_raw_fd(), 0).unwrap();
        self.sockets.push(socket);
    }

    pub(crate) fn remove_socket(&mut self, queue: u32) {
        let mut map: XskMap<&mut MapData> = self.map(XSKS);
        map.unset(queue).unwrap();
    }

    /// Packets per index, over all CPUs.
    fn counters(&mut self, name: &str) -> Vec<u64> {
        let map: PerCpuArray<&mut MapData, u64> = self.map(name);
        map.iter().map(|cpus| cpus.unwrap().iter().sum()).collect()
    }

    fn run(&mut self, options: TestRunOptions<'_>) -> Result<TestRunResult, Box<dyn Error>> {
        let program: &Xdp = self.ebpf.program(PROGRAM).unwrap().try_into()?;
        Ok(program.test_run(options)?)
    }

    /// What becomes of a frame on the loopback device's only queue.
    pub(crate) fn judge(&mut self, frame: &[u8]) -> Verdict {
        self.judge_in(frame, 0, None, 1).unwrap().0
    }

    /// The same, on a queue of a device by its index.
    pub(crate) fn judge_on(&mut self, frame: &[u8], device: u32, queue: u32) -> Verdict {
        let context = [0, frame.len().try_into().unwrap(), 0, device, queue, 0];
        self.judge_in(frame, queue, Some(context), 1).unwrap().0
    }

    /// The same with the first `hidden` bytes out of the program's sight; an error is the kernel's refusal.
    pub(crate) fn judge_behind(&mut self, bytes: &[u8], hidden: u32) -> Result<Verdict, Box<dyn Error>> {
        let context = [hidden, bytes.len().try_into().unwrap(), 0, 0, 0, 0];
        Ok(self.judge_in(bytes, 0, Some(context), 1)?.0)
    }

    /// Mean run time in ns over many runs.
    pub(crate) fn run_time_ns(&mut self, frame: &[u8], repeat: u32) -> (Verdict, u128) {
        let (verdict, result) = self.judge_in(frame, 0, None, repeat).unwrap();
        (verdict, result.duration.as_nanos())
    }

    /// Runs the program and holds what is true of every packet: exactly one verdict is counted, the action is that
    /// verdict's, a redirect is counted for its queue, and no byte is changed. `context` is `struct xdp_md`.
    fn judge_in(
        &mut self,
        frame: &[u8],
        queue: u32,
        context: Option<[u32; 6]>,
        repeat: u32,
    ) -> Result<(Verdict, TestRunResult), Box<dyn Error>> {
        let before = (self.counters(VERDICTS), self.counters(REDIRECTED));
        let context: Option<Vec<u8>> =
            context.map(|words| words.into_iter().flat_map(u32::to_ne_bytes).collect());
        let mut out = vec![0; frame.len()];
        let result = self.run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: context.as_deref(),
            repeat,
            ..TestRunOptions::default()
        })?;
        let after = (self.counters(VERDICTS), self.counters(REDIRECTED));
        let changed = |before: &[u64], after: &[u64]| -> Vec<(u32, u64)> {
            let pairs = (0..).zip(before.iter().zip(after));
            pairs
                .map(|(index, (before, after))| (index, after - before))
                .filter(|(_, more)| *more > 0)
                .collect()
        };
        let verdicts = changed(&before.0, &after.0);
        let [(index, more)] = verdicts[..] else {
            panic!("not exactly one verdict: {verdicts:?}");
        };
        assert_eq!(more, u64::from(repeat));
        let verdict = Verdict::ALL
            .into_iter()
            .find(|verdict| verdict.index() == index)
            .unwrap();
        assert_eq!(
            result.return_value,
            verdict.action() as u32,
            "action for {verdict:?}"
        );
        let redirects = match verdict.action() {
            Action::Redirect => vec![(queue, more)],
            Action::Pass | Action::Drop => vec![],
        };
        assert_eq!(changed(&before.1, &after.1), redirects, "{verdict:?}");
        assert!(
            frame.ends_with(&out[..result.data_size_out.try_into().unwrap()]),
            "changed the packet"
        );
        Ok((verdict, result))
    }
}
