//! `locations` and `quorum`: from where a journey is run.

use std::collections::BTreeMap;

use crate::cluster::first_at;
use crate::config::document::{Context, Data, NAME_HINT, Node, Section, is_name};
use crate::config::journeys::{Catalog, Loaded};
use crate::config::problem::Problem;
use crate::config::secrets::environment;
use crate::journey::schedule::Schedule;
use crate::journey::vantage::{Places, Vantage, part};
use crate::journey::{Journey, Name};

/// From where a journey is run.
pub(super) enum From {
    /// From wherever a daemon of this configuration is.
    Here,
    /// Not by this daemon, and it shares its journeys with no other.
    Elsewhere,
    /// From these places, by daemons that share a store; in so many of them it has to fail.
    Places(Vec<Name>, usize),
}

/// Reads it.
pub(super) fn read(section: &Section<'_>, catalog: &Catalog<'_>, name: &str) -> From {
    let context = section.context;
    let quorum = section.whole("quorum", 1..=1_000).map(|quorum| quorum as usize);
    let add = |key: &str, problem: &dyn Fn(&_) -> Problem| context.add(problem(&section.place_of(key)));
    let Some(locations) = section.strings("locations") else {
        if quorum.is_some_and(|quorum| quorum > 1) {
            add("quorum", &|place| {
                Problem::warning(place, "`quorum` says nothing without `locations`")
                    .hint("`locations = [\"london-1\", \"paris-1\"]` names the places that it is run from")
            });
        }
        return From::Here;
    };
    if !catalog.shares {
        if quorum.is_some_and(|quorum| quorum > 1) {
            add("quorum", &|place| {
                Problem::warning(place, "`quorum` says nothing where daemons do not share a store")
                    .hint("with `store.url = \"postgres://…\"` those of all places decide together")
            });
        }
        if locations.iter().any(|(location, _)| Some(*location) == catalog.location) {
            return From::Here;
        }
        let here =
            catalog.location.map_or("this daemon has no `location`".to_owned(), |here| format!("this is `{here}`"));
        add("locations", &|place| Problem::note(place, format!("journey `{name}` runs at other locations: {here}")));
        return From::Elsewhere;
    }
    let mut places: Vec<Name> = Vec::new();
    let mut firsts = BTreeMap::new();
    for (location, node) in locations {
        let said = |problem: String| Problem::error(&node.place, problem);
        if !is_name(location) {
            context.add(said(format!("`{location}` cannot be a location")).hint(NAME_HINT));
        } else if places.iter().any(|place| **place == *location) {
            context.add(Problem::warning(&node.place, format!("`{location}` is one place, though named twice")));
        } else if let Some(other) = firsts.insert(first_at(location), location) {
            let problem = said(format!("`{location}` and `{other}` would have the same shards"));
            context.add(problem.hint("another name for one of them: it is a matter of chance"));
        } else {
            places.push(location.into());
        }
    }
    if places.is_empty() {
        add("locations", &|place| Problem::error(place, "`locations` names no place"));
        return From::Here;
    }
    let quorum = quorum.unwrap_or(1);
    if quorum > places.len() {
        let (all, are) = (places.len(), if places.len() == 1 { "place" } else { "places" });
        add("quorum", &|place| {
            Problem::error(place, format!("{quorum} of {all} {are} can never agree"))
                .hint("`quorum` is how many of `locations` have to see it fail before people are told")
        });
    }
    From::Places(places, quorum)
}

/// Where this daemon looks from: a text, or `{ env = "…" }`, so that all daemons may have one file.
pub(super) fn own(context: &Context, node: &Node) -> Option<String> {
    let (text, place) = match &node.data {
        Data::Table(_) => {
            let section = Section::open(context, node, "location", &["env"])?;
            let variable = section.require("env", "the variable that says it, as in `{ env = \"LOCATION\" }`")?;
            let name = context.text(variable, "env")?;
            let Some(found) = environment(name) else {
                context.add(Problem::error(&variable.place, format!("the environment has no variable `{name}`")));
                return None;
            };
            (found, &variable.place)
        }
        _ => (context.text(node, "location")?.to_owned(), &node.place),
    };
    if text.is_empty() {
        context.add(Problem::error(place, "`location` is empty"));
    }
    Some(text)
}

/// What a daemon has of its own in tables of its file: addresses of its machine, and a directory there.
const OWN: &[(&str, &str)] = &[("http", "listen"), ("hooks", "listen"), ("store", "spool")];

/// The file without what is of one daemon alone: what several that share their journeys must have in common.
pub(super) fn without_own(main: &Node) -> Node {
    let mut main = main.clone();
    if let Data::Table(entries) = &mut main.data {
        entries.retain(|entry| entry.key != "location");
        for entry in entries {
            if let Data::Table(keys) = &mut entry.value.data {
                keys.retain(|key| !OWN.contains(&(&*entry.key, &*key.key)));
            }
        }
    }
    main
}

/// The journey with what each place sees of it, if it is run from several.
pub(super) fn expand(loaded: Loaded, places: &[Name], quorum: usize) -> Vec<Loaded> {
    let name = &loaded.journey.name;
    let parts: Vec<_> = places.iter().map(|location| (location.clone(), part(name, location))).collect();
    let seen = |(location, part): &(Name, Name)| {
        let schedule = match &loaded.journey.schedule {
            // Each place in its own time: together they look more often, and the system has not all of them at once.
            Schedule::Every { every, .. } => Schedule::every(*every, part),
            calendar => calendar.clone(),
        };
        let vantage = Some(Vantage::Place { of: name.clone(), location: location.clone() });
        Loaded {
            journey: Journey { name: part.clone(), schedule, vantage, ..loaded.journey.clone() },
            ..loaded.clone()
        }
    };
    let mut all: Vec<_> = parts.iter().map(seen).collect();
    let vantage = Some(Vantage::Together(Box::new(Places { parts, quorum })));
    all.insert(0, Loaded { journey: Journey { vantage, ..loaded.journey.clone() }, ..loaded });
    all
}

#[cfg(test)]
#[cfg(feature = "postgres")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load_text;

    const SHARED: &str = "[store]\nurl = \"postgres://nobody@127.0.0.1:1/none\"\n";

    fn load(main: &str, journey: &str) -> Result<(Vec<Journey>, Vec<String>), Vec<String>> {
        let main =
            format!("location = \"london-1\"\n{main}[channels.web]\ntype = \"http\"\nurl = \"http://127.0.0.1:1\"\n");
        let probe = format!(
            "[[journey]]\nname = \"buy\"\nevery = \"1m\"\nmuted = true\n{journey}\nstep = [{{ request = \"web\", path = \"/\" }}]\n"
        );
        let said = |problems: Vec<Problem>| problems.into_iter().map(|problem| problem.message).collect();
        match load_text("journeyman.toml", &main, &[("probe.toml", &probe)], Path::new("/")) {
            Ok((plan, problems)) => {
                Ok((plan.journeys.iter().map(|journey| (**journey).clone()).collect(), said(problems)))
            }
            Err(problems) => Err(said(problems)),
        }
    }

    #[test]
    fn a_journey_of_several_places_is_itself_and_what_each_of_them_runs() {
        let (journeys, problems) = load(SHARED, "locations = [\"london-1\", \"paris-1\"]\nquorum = 2").unwrap();
        assert!(problems.is_empty(), "{problems:#?}");
        let names: Vec<_> = journeys.iter().map(|journey| &*journey.name).collect();
        assert_eq!(names, ["buy", "buy@london-1", "buy@paris-1"]);
        let [both, london, paris] = &journeys[..] else { panic!("{names:?}") };
        assert!(!both.is_run() && both.places().is_some_and(|places| places.quorum == 2));
        assert!(london.is_run() && london.is_part() && **london.told_as() == *"buy");
        assert_ne!(london.schedule, paris.schedule, "each in its own phase");
        assert_eq!(
            [both, london, paris].map(|one| one.seen_from(Some("here"))),
            [None, Some("london-1"), Some("paris-1")]
        );
        // Silences and routes see one journey.
        let labels = paris.alert_labels(Some("here"));
        assert_eq!((&*labels["journey"], &*labels["location"]), ("buy", "paris-1"));
    }

    #[test]
    fn who_shares_nothing_runs_what_is_for_its_place() {
        let (journeys, problems) = load("", "locations = [\"london-1\", \"paris-1\"]\nquorum = 2").unwrap();
        assert!(journeys.len() == 1 && journeys[0].vantage.is_none());
        assert_eq!(problems, ["`quorum` says nothing where daemons do not share a store"]);
        let (journeys, problems) = load("", "locations = [\"paris-1\"]").unwrap();
        assert!(
            journeys.is_empty()
                && problems.contains(&"journey `buy` runs at other locations: this is `london-1`".to_owned()),
            "{problems:#?}"
        );
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (journey, said) in [
            ("locations = []", "`locations` names no place"),
            ("locations = [\"a\"]\nquorum = 2", "2 of 1 place can never agree"),
            ("locations = [\"a\", \"b\"]\nquorum = 3", "3 of 2 places can never agree"),
            ("locations = [\"a b\"]", "`a b` cannot be a location"),
        ] {
            let problems = load(SHARED, journey).unwrap_err();
            assert!(problems.iter().any(|problem| problem == said), "{journey}: {problems:#?}");
        }
        let (_, problems) = load(SHARED, "locations = [\"a\", \"a\"]").unwrap();
        assert_eq!(problems, ["`a` is one place, though named twice"]);
        let (_, problems) = load(SHARED, "quorum = 2").unwrap();
        assert_eq!(problems, ["`quorum` says nothing without `locations`"]);
    }
}
