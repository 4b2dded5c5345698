//! The guests' peer on the host: hands out scripts, echoes data, says how far the test is.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// A connection that stays silent this long is dropped.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// The most that is echoed on one connection.
const ECHO_LIMIT_BYTES: u64 = 64 << 20;

/// How far the test is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everybody boots and moves data.
    #[default]
    Traffic,
    /// Alpha has traffic with the host: beta may reset.
    Reset,
    /// Beta is back: everybody may stop.
    Done,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    boots: BTreeMap<String, usize>,
}

/// The peer, listening on the loopback address until the process ends.
#[derive(Debug)]
pub struct Peer {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Peer {
    /// Starts listening. A VM's n-th request for a script gets the file `scripts/NAME-n`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(scripts: &Path) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the guests' peer")?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, scripts) = (Arc::clone(&state), scripts.to_path_buf());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, scripts) = (Arc::clone(&shared), scripts.clone());
                // A guest that resets breaks its connections: that is no failure of the test by itself.
                thread::spawn(move || answer(&stream, &state, &scripts));
            }
        });
        Ok(Self { port, state })
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Goes on to `stage`; never back.
    pub fn advance(&self, stage: Stage) {
        let mut state = self.state.lock().expect("no thread panics with the state");
        state.stage = state.stage.max(stage);
    }
}

/// One connection: a line `REQUEST NAME`, then data until the guest has no more.
fn answer(mut stream: &TcpStream, state: &Mutex<State>, scripts: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_LIMIT))?;
    stream.set_write_timeout(Some(SILENCE_LIMIT))?;
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.by_ref().take(256).read_line(&mut request)?;
    let (verb, name) = request.trim().split_once(' ').unwrap_or_default();
    match verb {
        "script" => stream.write_all(&fs::read(next_script(state, scripts, name))?),
        "status" => stream.write_all(status(state).as_bytes()),
        "echo" => {
            // All of it first: two ends that both write before they read would wait for each other.
            let mut data = Vec::new();
            reader.take(ECHO_LIMIT_BYTES).read_to_end(&mut data)?;
            stream.write_all(&data)
        }
        _ => Ok(()),
    }
}

fn next_script(state: &Mutex<State>, scripts: &Path, name: &str) -> PathBuf {
    let mut state = state.lock().expect("no thread panics with the state");
    let boots = state.boots.entry(name.to_owned()).or_default();
    *boots += 1;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    scripts.join(if is_name { format!("{name}-{boots}") } else { "none".to_owned() })
}

fn status(state: &Mutex<State>) -> &'static str {
    match state.lock().expect("no thread panics with the state").stage {
        Stage::Traffic => "traffic\n",
        Stage::Reset => "reset\n",
        Stage::Done => "done\n",
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        io::{Read, Write},
        net::{Shutdown, TcpStream},
    };

    use super::{Peer, Stage};

    fn ask(peer: &Peer, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", peer.port())).expect("the peer listens");
        stream.write_all(request).expect("the peer reads");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the peer answers");
        answer
    }

    /// Would miss: a second boot that gets the first one's script and resets for ever.
    #[test]
    fn each_boot_has_its_script() {
        let folder = env::temp_dir().join(format!("bulkhead-peer-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("beta-1"), "first").expect("a file");
        fs::write(folder.join("beta-2"), "second").expect("a file");
        let peer = Peer::start(&folder).expect("a peer");
        assert_eq!(ask(&peer, b"script beta\n"), b"first");
        assert_eq!(ask(&peer, b"script beta\n"), b"second");
        assert_eq!(ask(&peer, b"script ../beta\n"), b"");
        fs::remove_dir_all(folder).expect("the folder goes");
    }

    /// Would miss: data after the request line that is lost in a buffer, and a stage that goes back.
    #[test]
    fn data_comes_back_whole_and_stages_go_forward() {
        let peer = Peer::start(&env::temp_dir()).expect("a peer");
        let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(ask(&peer, &[b"echo alpha\n".as_slice(), &data].concat()), data);
        assert_eq!(ask(&peer, b"status alpha\n"), b"traffic\n");
        peer.advance(Stage::Done);
        peer.advance(Stage::Reset);
        assert_eq!(ask(&peer, b"status alpha\n"), b"done\n");
    }
}
