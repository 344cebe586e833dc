//! Carries a plan out, checks that it is in effect, and undoes it.
//!
//! Invariants: nothing is changed that is not recorded first for undoing; a refusal undoes what was
//! done and plans again with less on offer, so a start always ends in a working method; other
//! people's rules are never touched.

use super::ethtool::{self, Ethtool, Output};
use super::plan::{self, Family, Method, NOT_OFFERED, Offer, Plan, Rule, Target};
use super::toeplitz::Rss;

/// A change to a NIC and how to take it back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// Arguments of `ethtool` that restore a setting.
    Setting(Vec<String>),
    /// A rule of ours.
    Rule(u32),
}

/// What became of the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What steers now.
    pub method: Method,
    /// Why that one, with what drivers answered.
    pub reason: String,
}

impl Outcome {
    /// RSS for choosing ports, when that is the method.
    #[must_use]
    pub fn rss(&self) -> Option<&Rss> {
        match &self.method {
            Method::PortHash(rss) | Method::PortChoice(rss) => Some(rss),
            Method::Ntuple(_) | Method::HandOff => None,
        }
    }
}

/// Steering of one interface while the mixer runs; undone when dropped.
///
/// The program `ethtool` needs `CAP_NET_ADMIN`, and inherits it only as root or from the ambient set
/// (systemd's `AmbientCapabilities`): with file capabilities of the mixer alone every method that
/// changes the NIC is refused. Name it in [`crate::capabilities::keep_only`], or undoing is refused.
#[derive(Debug)]
pub struct Steering<E: Ethtool> {
    ethtool: E,
    interface: String,
    changes: Vec<Change>,
    outcome: Outcome,
}

impl<E: Ethtool> Steering<E> {
    /// Steers `targets` on `interface` as well as its driver can. Never fails: what a driver does
    /// not offer is in [`Steering::outcome`], and hand-off between workers does the rest.
    /// Runs `ethtool` a few times; call it before workers start.
    pub fn start(ethtool: E, interface: &str, targets: &[Target]) -> Self {
        let mut steering = Self {
            ethtool,
            interface: interface.to_owned(),
            changes: Vec::new(),
            outcome: Outcome {
                method: Method::HandOff,
                reason: NOT_OFFERED.to_owned(),
            },
        };
        steering.outcome = steering.establish(targets);
        let (method, reason) = (steering.outcome.method.name(), &steering.outcome.reason);
        tracing::info!(interface, method, reason, "steering of received packets");
        steering
    }

    /// What steers, and why.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Takes everything back, last change first. What cannot be taken back is logged.
    pub fn undo(&mut self) {
        self.revert();
        self.outcome = Outcome {
            method: Method::HandOff,
            reason: "undone".to_owned(),
        };
    }

    fn establish(&mut self, targets: &[Target]) -> Outcome {
        if targets.len() < 2 {
            let Plan { method, reason } = plan::plan(targets, &Offer::default());
            return Outcome { method, reason };
        }
        let mut offer = self.probe(targets);
        let mut refusals: Vec<String> = Vec::new();
        loop {
            let Plan { method, reason } = plan::plan(targets, &offer);
            match self.carry_out(&method) {
                Ok(()) => {
                    refusals.insert(0, reason);
                    let reason = refusals.join("; ");
                    return Outcome { method, reason };
                }
                Err(refusal) => {
                    self.revert();
                    let interface = &self.interface;
                    tracing::info!(
                        interface,
                        method = method.name(),
                        refusal,
                        "steering method refused"
                    );
                    refusals.push(format!("{} refused: {refusal}", method.name()));
                }
            }
            // Every method but the last asks for something that can be crossed out.
            match method {
                Method::Ntuple(_) => offer.ntuple = None,
                Method::PortHash(_) => offer.port_hash = false,
                Method::PortChoice(_) | Method::HandOff => offer.rss = None,
            }
        }
    }

    /// What the driver seems to offer. The number of rules it holds is not told; it refuses.
    fn probe(&mut self, targets: &[Target]) -> Offer {
        let features = match self.ethtool.run(&["-k", &self.interface]) {
            Ok(output) => ethtool::features(&output.text),
            Err(error) => {
                let interface = &self.interface;
                tracing::warn!(interface, %error, "ethtool cannot be run; install it for steering (apt-get install ethtool)");
                return Offer::default();
            }
        };
        let ntuple = features
            .get("ntuple-filters")
            .is_some_and(|feature| feature.on || !feature.fixed);
        if ntuple {
            self.remove_leftovers(&plan::wanted_rules(targets));
        }
        Offer {
            ntuple: ntuple.then_some(usize::MAX),
            port_hash: true,
            rss: ethtool::rss(&self.ethtool, &self.interface),
        }
    }

    /// Rules that are exactly ours are from a run that was killed: a port block is served by one mixer.
    fn remove_leftovers(&self, ours: &[Rule]) {
        for (number, rule) in self.rules() {
            if ours.contains(&rule) {
                let interface = &self.interface;
                tracing::warn!(interface, number, %rule, "removing a rule that a former run left behind");
                self.take_back(&Change::Rule(number));
            }
        }
    }

    fn carry_out(&mut self, method: &Method) -> Result<(), String> {
        match method {
            Method::Ntuple(rules) => self.add_rules(rules),
            Method::PortHash(_) => self.hash_on_port(),
            Method::PortChoice(_) | Method::HandOff => Ok(()),
        }
    }

    fn add_rules(&mut self, rules: &[Rule]) -> Result<(), String> {
        let features = ethtool::features(&self.ask(&["-k"], &[])?.text);
        if features.get("ntuple-filters").is_some_and(|feature| !feature.on) {
            let set = |state: &str| {
                ["-K", &self.interface, "ntuple", state]
                    .map(str::to_owned)
                    .to_vec()
            };
            let (on, off) = (set("on"), set("off"));
            self.changes.push(Change::Setting(off));
            self.must(&on)?;
        }
        for rule in rules {
            let output = self.must(&ethtool::add_rule(&self.interface, rule))?;
            // Drivers with the older interface print no number; then the list tells it.
            let number = ethtool::added_rule(&output.text).or_else(|| self.number_of(rule));
            let number = number.ok_or_else(|| format!("{rule}: accepted, but not in the list of rules"))?;
            self.changes.push(Change::Rule(number));
            tracing::debug!(interface = self.interface, number, %rule, "rule added");
        }
        let listed = self.rules();
        let missing = rules
            .iter()
            .find(|rule| !listed.iter().any(|(_, listed)| listed == *rule));
        missing.map_or(Ok(()), |rule| {
            Err(format!("{rule}: accepted, but reads back differently"))
        })
    }

    fn hash_on_port(&mut self) -> Result<(), String> {
        for family in Family::ALL {
            let flow = ["rx-flow-hash", family.name()];
            let read = |text: &str| ethtool::hash_letters(text).filter(|letters| !letters.is_empty());
            let former =
                read(&self.ask(&["-n"], &flow)?.text).ok_or("its hashed fields cannot be read back")?;
            let set = |letters: &str| ["-N", &self.interface, flow[0], flow[1], letters].map(str::to_owned);
            let (set_port, restore) = (set("n"), set(&former));
            self.changes.push(Change::Setting(restore.to_vec()));
            self.must(&set_port)?;
            // ethtool exits with 0 even when the driver refuses.
            let now = read(&self.ask(&["-n"], &flow)?.text);
            if now.as_deref() != Some("n") {
                return Err(format!(
                    "{} still hashes {}",
                    flow[1],
                    now.as_deref().unwrap_or("nothing")
                ));
            }
        }
        Ok(())
    }

    fn rules(&self) -> Vec<(u32, Rule)> {
        let output = self.ask(&["-n"], &[]);
        output.map_or_else(|_| Vec::new(), |output| ethtool::listed_rules(&output.text))
    }

    fn number_of(&self, rule: &Rule) -> Option<u32> {
        let rules = self.rules();
        rules
            .iter()
            .find_map(|(number, listed)| (listed == rule).then_some(*number))
    }

    fn revert(&mut self) {
        while let Some(change) = self.changes.pop() {
            self.take_back(&change);
        }
    }

    fn take_back(&self, change: &Change) {
        let arguments = match change {
            Change::Setting(arguments) => arguments.clone(),
            Change::Rule(number) => {
                let number = number.to_string();
                ["-N", &self.interface, "delete", &number]
                    .map(str::to_owned)
                    .to_vec()
            }
        };
        if let Err(error) = self.must(&arguments) {
            let (interface, command) = (&self.interface, arguments.join(" "));
            tracing::warn!(
                interface,
                error,
                "steering could not be undone; run: ethtool {command}"
            );
        }
    }

    /// Runs a question about the interface; an exit code other than 0 is an answer as well.
    fn ask(&self, option: &[&str], more: &[&str]) -> Result<Output, String> {
        let arguments = [option, &[self.interface.as_str()], more].concat();
        self.ethtool.run(&arguments).map_err(|error| error.to_string())
    }

    /// Runs a change.
    fn must(&self, arguments: &[String]) -> Result<Output, String> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match self.ethtool.run(&arguments) {
            Ok(output) if output.ok => Ok(output),
            Ok(output) => Err(format!("ethtool {}: {}", arguments.join(" "), output.error)),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl<E: Ethtool> Drop for Steering<E> {
    fn drop(&mut self) {
        self.revert();
    }
}

#[cfg(test)]
mod tests;
