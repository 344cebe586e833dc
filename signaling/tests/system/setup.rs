//! Starts and stops the programs.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;

pub(crate) const SIGNALING: &str = env!("CARGO_BIN_EXE_mixminus-signaling");
pub(crate) const TOOL: &str = env!("CARGO_BIN_EXE_mixminus");

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits a little; tests wait for conditions, never for time.
pub(crate) fn nap() {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests of other processes can only look again"
    )]
    std::thread::sleep(Duration::from_millis(20));
}

/// Looks until there is something, for as long as patience lasts.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if let Some(found) = look() {
            return found;
        }
        nap();
    }
    panic!("waited in vain: {what}");
}

/// The mixer's program stands where cargo puts this package's programs.
pub(crate) fn mixer_program() -> PathBuf {
    let program = Path::new(SIGNALING).with_file_name("mixminus-mixer");
    let profile = if cfg!(debug_assertions) { "" } else { " --release" };
    assert!(
        program.is_file(),
        "{} is missing; run `cargo build -p mixer{profile}` first",
        program.display()
    );
    program
}

/// A directory of one test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mixminus-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program that dies with the test.
pub(crate) struct Program(Child);

impl Program {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap(),
        )
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM; returns the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let id = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        self.0.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A block of RTP ports that no other test of this or another run is likely to use.
fn rtp_block() -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let seed = u16::try_from(std::process::id() % 80).unwrap() * 3 + NEXT.fetch_add(1, Ordering::Relaxed);
    let base = 10_000 + (seed % 100) * 220;
    (base, base + 219)
}

/// A mixer and a signaling process.
pub(crate) struct System {
    pub(crate) mixer: Program,
    pub(crate) signaling: Program,
    pub(crate) sip: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) control: SocketAddr,
    config: PathBuf,
    directory: Directory,
}

impl System {
    pub(crate) fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        let [sip, http, control] = [(); 3].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let (first, last) = rtp_block();
        let mixer_config = directory.file(
            "mixer.toml",
            &format!(
                "[io]\nbackend = \"uring\"\nports = \"{first}-{last}\"\n[control]\nlisten = \"{control}\"\n"
            ),
        );
        let config = directory.file(
            "signaling.toml",
            &format!(
                "[sip]\nlisten = [\"udp:{sip}\", \"tcp:{sip}\"]\n[http]\nlisten = \"{http}\"\n\
                 [[mixer]]\nurl = \"http://{control}\"\n[store]\nurl = \"sqlite:{}/state/x.db\"\n",
                directory.path().display()
            ),
        );
        let mut command = Command::new(mixer_program());
        let mixer = Program::start(
            command.arg("--config").arg(mixer_config),
            &directory.path().join("mixer.log"),
        );
        let signaling = start_signaling(&config, directory.path());
        let system = Self {
            mixer,
            signaling,
            sip,
            http,
            control,
            config,
            directory,
        };
        system.wait_until_ready();
        system
    }

    pub(crate) fn start_signaling_again(&mut self) {
        self.signaling = start_signaling(&self.config, self.directory.path());
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let ready = || http_get(self.http, "/readyz").filter(|(status, _)| *status == 200);
        let logs =
            || std::fs::read_to_string(self.directory.path().join("signaling.log")).unwrap_or_default();
        for _ in 0..PATIENCE.as_millis() / 20 {
            if ready().is_some() {
                return;
            }
            nap();
        }
        panic!("not ready; its log: {}", logs());
    }

    /// Runs the operator's tool against this system.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Output {
        run(Command::new(TOOL)
            .arg("--url")
            .arg(format!("http://{}", self.http))
            .args(arguments))
    }

    /// The same, successful, with JSON read.
    pub(crate) fn tool_json(&self, arguments: &[&str]) -> Value {
        let output = self.tool(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// One value of the metrics page; `name` with labels as printed.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, page) = http_get(self.http, "/metrics").unwrap();
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}"))
            .parse()
            .unwrap()
    }

    /// Waits until the mixer has forgotten everything.
    pub(crate) fn wait_until_mixer_is_empty(&self) {
        wait_for("an empty mixer", || {
            let (_, state) = http_get(self.control, "/v1/state")?;
            let state: Value = serde_json::from_str(&state).ok()?;
            state["conferences"].as_array()?.is_empty().then_some(())
        });
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn start_signaling(config: &Path, directory: &Path) -> Program {
    Program::start(
        Command::new(SIGNALING).arg("--config").arg(config),
        &directory.join("signaling.log"),
    )
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// A plain HTTP GET.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(
        !head.to_ascii_lowercase().contains("transfer-encoding: chunked"),
        "this reader takes plain bodies"
    );
    Some((status, body.to_owned()))
}

/// A UDP socket on a free port.
pub(crate) fn udp() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}
