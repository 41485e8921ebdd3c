//! Scripted timelines, and whatever else may happen: each fault that was begun is undone once, and nothing goes on after the end.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Mono {
    Mono(Duration::from_secs(seconds))
}

fn phase(name: &str, until: usize) -> Phase {
    let (least, longest) = (Duration::from_secs(10), Duration::from_secs(10));
    Phase { name: name.to_owned(), asks: false, acts: true, proof: None, least, looks: false, longest, until }
}

fn script() -> Script {
    let (second, drain) = (Duration::from_secs(1), Duration::from_secs(30));
    let cut = Phase { proof: Some(second * 5), ..phase("cut", 1) };
    let restart = Phase { looks: true, longest: second * 20, ..phase("restart", 1) };
    let after = Phase { acts: false, ..phase("after", 2) };
    Script { steady: Some(second * 3), phases: vec![cut, restart, after], drain }
}

#[test]
fn an_experiment_goes_from_steady_to_drained_and_heals_where_it_says() {
    let mut machine = Machine::new(script());
    use Action::*;
    assert_eq!(machine.step(Event::Begin, at(0)), [StartTraffic, Enter(Stage::Steady)]);
    assert_eq!(machine.deadline(), Some(at(3)));
    assert_eq!(machine.step(Event::Timer, at(3)), [Judge]);
    assert_eq!(machine.step(Event::Judged(Ok(())), at(3)), [Enter(Stage::Phase(0)), Act(0)]);
    assert_eq!(machine.deadline(), None, "a command has its own limit");
    assert_eq!(machine.step(Event::Acted(Ok(())), at(4)), [Prove(0)]);
    assert_eq!(machine.step(Event::Proved, at(5)), []);
    assert_eq!(machine.step(Event::Timer, at(14)), [], "it lasts from when it took effect");
    assert_eq!(machine.step(Event::Timer, at(15)), [Enter(Stage::Phase(1)), Act(1)], "it stays until the next is over");
    assert_eq!(machine.step(Event::Acted(Ok(())), at(15)), [Look(1)]);
    assert_eq!(machine.step(Event::Over, at(20)), [], "not before its least");
    assert_eq!(machine.deadline(), Some(at(25)));
    assert_eq!(machine.step(Event::Timer, at(25)), [Quiet, Undo(1), Undo(0)], "the last that was done goes first");
    assert_eq!(machine.step(Event::Undone(1, Ok(())), at(25)), []);
    assert_eq!(machine.step(Event::Undone(0, Ok(())), at(26)), [Enter(Stage::Phase(2))]);
    assert_eq!(machine.step(Event::Timer, at(36)), [StopTraffic, Enter(Stage::Drain)]);
    assert!(machine.is_draining());
    let finished = Finished { ending: Ending::Held, why: None, is_drained: true };
    assert_eq!(machine.step(Event::AllHere, at(40)), [Finish(finished)]);
}

/// A machine that has begun at 0, to which all this happens at 3.
fn begun<const N: usize>(events: [Event; N]) -> Machine {
    let mut machine = Machine::new(script());
    let _ = machine.step(Event::Begin, at(0));
    for event in events {
        let _ = machine.step(event, at(3));
    }
    machine
}

/// A machine that has cut, and lasts.
fn cut() -> Machine {
    begun([Event::Timer, Event::Judged(Ok(())), Event::Acted(Ok(())), Event::Proved])
}

#[test]
fn an_abort_heals_at_once_and_counts_what_still_comes() {
    let mut machine = cut();
    let actions = machine.step(Event::Abort("too slow".to_owned()), at(4));
    assert_eq!(actions, [Action::Quiet, Action::Undo(0), Action::StopTraffic]);
    assert_eq!(machine.step(Event::Abort("again".to_owned()), at(4)), []);
    assert_eq!(machine.step(Event::Undone(0, Ok(())), at(5)), [Action::Enter(Stage::Drain)]);
    let finished = Finished { ending: Ending::Aborted, why: Some("too slow".to_owned()), is_drained: true };
    assert_eq!(machine.step(Event::Timer, at(35)), [Action::Finish(finished)]);
}

#[test]
fn whoever_stops_it_waits_for_the_healing_and_for_nothing_else() {
    let mut machine = cut();
    assert_eq!(machine.step(Event::Stop, at(4)), [Action::Quiet, Action::Undo(0), Action::StopTraffic]);
    let finished = Finished { ending: Ending::Aborted, why: Some("it was stopped".to_owned()), is_drained: false };
    assert_eq!(machine.step(Event::Undone(0, Ok(())), at(5)), [Action::Finish(finished)]);
}

#[test]
fn a_fault_without_effect_is_no_test_and_is_undone_all_the_same() {
    let mut machine = begun([Event::Timer, Event::Judged(Ok(())), Event::Acted(Ok(()))]);
    assert_eq!(machine.step(Event::Timer, at(7)), []);
    assert_eq!(machine.step(Event::Timer, at(8)), [Action::Quiet, Action::Undo(0), Action::StopTraffic]);
    let _ = machine.step(Event::Undone(0, Ok(())), at(8));
    let actions = machine.step(Event::AllHere, at(9));
    let [Action::Finish(Finished { ending: Ending::NotTested, why: Some(why), .. })] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(why, "phase `cut` took no effect: its proof was not seen within 5s");
}

#[test]
fn what_fails_half_way_is_undone_too_and_nothing_is_cut_on_a_bad_start() {
    let mut machine = begun([Event::Timer, Event::Judged(Ok(()))]);
    let actions = machine.step(Event::Acted(Err("exit 1".to_owned())), at(4));
    assert_eq!(actions, [Action::Quiet, Action::Undo(0), Action::StopTraffic]);

    let mut machine = Machine::new(script());
    let _ = [machine.step(Event::Begin, at(0)), machine.step(Event::Timer, at(3))];
    let actions = machine.step(Event::Judged(Err("2 lost".to_owned())), at(3));
    assert_eq!(actions, [Action::Quiet, Action::StopTraffic, Action::Enter(Stage::Drain)]);
}

#[test]
fn what_cannot_be_undone_is_the_worst_that_can_be_told() {
    let mut machine = cut();
    let _ = machine.step(Event::Abort("too slow".to_owned()), at(4));
    let _ = machine.step(Event::Undone(0, Err("no such rule".to_owned())), at(5));
    let actions = machine.step(Event::AllHere, at(6));
    let [Action::Finish(Finished { ending: Ending::Stuck, why: Some(why), .. })] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(why, "what phase `cut` did could not be undone: no such rule");
}

/// Any script of up to four phases.
fn any_script() -> impl Strategy<Value = Script> {
    let phase = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), 0..4usize);
    (any::<bool>(), prop::collection::vec(phase, 0..4)).prop_map(|(is_steady, phases)| {
        let count = phases.len();
        let second = Duration::from_secs(1);
        let phases = phases.into_iter().enumerate().map(|(at, (asks, acts, proves, looks, until))| Phase {
            asks,
            acts,
            proof: proves.then_some(second * 2),
            looks,
            longest: second * 15,
            ..phase_of(at, (at + until).min(count - 1))
        });
        Script { steady: is_steady.then_some(second), phases: phases.collect(), drain: second * 5 }
    })
}

fn phase_of(at: usize, until: usize) -> Phase {
    phase(&format!("p{at}"), until)
}

fn any_event() -> impl Strategy<Value = Event> {
    let result = any::<bool>().prop_map(|is_ok| if is_ok { Ok(()) } else { Err("no".to_owned()) });
    prop_oneof![
        4 => Just(Event::Timer),
        2 => result.clone().prop_map(Event::Judged),
        2 => any::<bool>().prop_map(Event::Answered),
        3 => result.clone().prop_map(Event::Acted),
        2 => Just(Event::Proved),
        2 => Just(Event::Over),
        3 => (0..4usize, result).prop_map(|(phase, result)| Event::Undone(phase, result)),
        1 => Just(Event::AllHere),
        1 => Just(Event::Abort("why".to_owned())),
        1 => Just(Event::Stop),
    ]
}

/// What was done to each phase so far.
#[derive(Default)]
struct Watch {
    begun: BTreeSet<usize>,
    undone: BTreeSet<usize>,
    sends: bool,
    finished: bool,
}

impl Watch {
    fn see(&mut self, actions: &[Action]) -> Result<(), TestCaseError> {
        for action in actions {
            prop_assert!(!self.finished, "something is done after the end: {:?}", action);
            match action {
                Action::Act(phase) => prop_assert!(self.begun.insert(*phase), "{} is begun twice", phase),
                Action::Undo(phase) => {
                    prop_assert!(self.begun.contains(phase), "{} was never begun", phase);
                    prop_assert!(self.undone.insert(*phase), "{} is undone twice", phase);
                }
                Action::StartTraffic => prop_assert!(!std::mem::replace(&mut self.sends, true)),
                Action::StopTraffic => prop_assert!(std::mem::replace(&mut self.sends, false), "it had stopped"),
                Action::Finish(_) => {
                    prop_assert_eq!(&self.begun, &self.undone, "the end came before the healing");
                    prop_assert!(!self.sends);
                    self.finished = true;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn whatever_happens_each_fault_is_undone_once_before_the_end(
        script in any_script(),
        events in prop::collection::vec((any_event(), 0..4u64), 0..60),
    ) {
        let (mut machine, mut watch) = (Machine::new(script), Watch::default());
        let mut now = 0;
        watch.see(&machine.step(Event::Begin, at(now)))?;
        for (event, later) in events {
            now += later;
            let ends = matches!(event, Event::Abort(_) | Event::Stop);
            watch.see(&machine.step(event, at(now)))?;
            if ends && !watch.finished {
                prop_assert_eq!(&watch.begun, &watch.undone, "an end waits for something before it heals");
                prop_assert!(!watch.sends || machine.is_draining());
            }
        }
        // Whoever answers everything gets to the end.
        for _ in 0..100 {
            now += 1_000;
            for phase in 0..4 {
                watch.see(&machine.step(Event::Undone(phase, Ok(())), at(now)))?;
            }
            for event in [Event::Timer, Event::Judged(Ok(())), Event::Answered(true), Event::Acted(Ok(()))] {
                watch.see(&machine.step(event, at(now)))?;
            }
        }
        prop_assert!(watch.finished, "it has no end: {:?}", machine);
    }
}
