use std::string::ToString;
use std::vec;

use super::*;
use crate::power::BatteryStatus;
use crate::topology::Frequency;

/// A value as the kernel holds it.
enum Value {
    Int(i32),
    Quad(u64),
    Text(&'static str),
}
use Value::{Int, Quad, Text};

/// What `sysctl -a` prints on an M1 Pro with 16 GiB.
const M1_PRO: &[(&str, Value)] = &[
    ("machdep.cpu.brand_string", Text("Apple M1 Pro")),
    ("hw.logicalcpu", Int(10)),
    ("hw.physicalcpu", Int(10)),
    ("hw.packages", Int(1)),
    ("hw.memsize", Quad(17_179_869_184)),
    ("hw.pagesize", Quad(16_384)),
    ("hw.l1dcachesize", Quad(65_536)),
    ("hw.nperflevels", Int(2)),
    ("hw.perflevel0.logicalcpu", Int(8)),
    ("hw.perflevel0.l1icachesize", Int(196_608)),
    ("hw.perflevel0.l1dcachesize", Int(131_072)),
    ("hw.perflevel0.l2cachesize", Int(12_582_912)),
    ("hw.perflevel0.cpusperl2", Int(4)),
    ("hw.perflevel1.logicalcpu", Int(2)),
    ("hw.perflevel1.l1icachesize", Int(131_072)),
    ("hw.perflevel1.l1dcachesize", Int(65_536)),
    ("hw.perflevel1.l2cachesize", Int(4_194_304)),
    ("hw.perflevel1.cpusperl2", Int(2)),
];

/// Answers as the kernel does: what does not fit is refused.
fn answers(values: &'static [(&str, Value)]) -> impl SystemControl {
    |name: &str, bytes_max: usize| {
        let (_, value) = values.iter().find(|(known, _)| *known == name)?;
        let bytes = match value {
            Int(number) => number.to_ne_bytes().to_vec(),
            Quad(number) => number.to_ne_bytes().to_vec(),
            Text(text) => [text.as_bytes(), b"\0"].concat(),
        };
        (bytes.len() <= bytes_max).then_some(bytes)
    }
}

fn cache(
    level: u8,
    kind: CacheKind,
    kib: u64,
    shared_by: Option<u32>,
    instances: Option<u32>,
) -> Cache {
    Cache {
        level,
        kind,
        size_bytes: kib * 1024,
        line_bytes: None,
        ways: None,
        shared_by,
        instances,
    }
}

#[test]
fn both_kinds_of_cores_have_their_caches() {
    let found = topology(answers(M1_PRO), Topology::default());
    let model = found.model.map(|model| model.to_string());
    assert_eq!(model.as_deref(), Some("Apple M1 Pro"));
    assert_eq!(found.logical, Some(10));
    assert_eq!(found.physical, Some(10));
    assert_eq!(found.packages, Some(1));
    assert_eq!(found.frequency, Frequency::default());
    let caches: Vec<Cache> = found.caches.iter().copied().collect();
    let expected = vec![
        cache(1, CacheKind::Data, 64, None, None),
        cache(1, CacheKind::Data, 128, None, None),
        cache(1, CacheKind::Instruction, 128, None, None),
        cache(1, CacheKind::Instruction, 192, None, None),
        cache(2, CacheKind::Unified, 4 * 1024, Some(2), Some(1)),
        cache(2, CacheKind::Unified, 12 * 1024, Some(4), Some(2)),
    ];
    assert_eq!(caches, expected);
}

#[test]
fn what_the_processor_says_stays() {
    let mut of_processor = Topology {
        model: Model::new("VirtualApple @ 2.50GHz"),
        ..Topology::default()
    };
    let of_cpuid = cache(1, CacheKind::Data, 32, None, None);
    of_processor.caches.push(of_cpuid);
    let found = topology(answers(M1_PRO), of_processor);
    assert_eq!(found.model, of_processor.model);
    assert_eq!(found.caches, of_processor.caches);
    assert_eq!(found.logical, Some(10));
}

#[test]
fn what_is_not_said_is_not_known() {
    let of_processor = Topology {
        model: Model::new("a processor"),
        ..Topology::default()
    };
    assert_eq!(topology(answers(&[]), of_processor), of_processor);
    assert_eq!(memory(answers(&[])), Memory::default());
}

#[test]
fn nonsense_is_not_known_either() {
    const NONSENSE: &[(&str, Value)] = &[
        ("machdep.cpu.brand_string", Text("")),
        ("hw.logicalcpu", Int(0)),
        ("hw.physicalcpu", Int(-1)),
        ("hw.packages", Quad(1 << 40)),
        ("hw.memsize", Text("lots of it")),
        ("hw.pagesize", Int(0)),
        // More kinds of cores than are asked about.
        ("hw.nperflevels", Quad(u64::MAX)),
        ("hw.perflevel0.l1dcachesize", Int(0)),
        // Eight processors cannot share caches by three.
        ("hw.perflevel1.logicalcpu", Int(8)),
        ("hw.perflevel1.l2cachesize", Int(4096)),
        ("hw.perflevel1.cpusperl2", Int(3)),
        ("hw.perflevel2.l2cachesize", Int(8192)),
        ("hw.perflevel2.cpusperl2", Int(0)),
    ];
    let found = topology(answers(NONSENSE), Topology::default());
    assert_eq!(found.model, None);
    assert_eq!(found.logical, None);
    assert_eq!(found.physical, None);
    assert_eq!(found.packages, None);
    let caches: Vec<Cache> = found.caches.iter().copied().collect();
    let expected = vec![
        cache(2, CacheKind::Unified, 4, Some(3), None),
        cache(2, CacheKind::Unified, 8, None, None),
    ];
    assert_eq!(caches, expected);
    assert_eq!(memory(answers(NONSENSE)), Memory::default());
}

#[test]
fn memory_is_what_the_kernel_says() {
    let expected = Memory {
        total_bytes: Some(16 << 30),
        page_bytes: Some(16_384),
        ..Memory::default()
    };
    assert_eq!(memory(answers(M1_PRO)), expected);
}

/// The battery of a notebook: what it draws from, whether it is charging, and its charge in percent.
fn internal(
    state: &str,
    is_charging: impl Into<Option<bool>>,
    percent: i64,
) -> PowerSourceDescription {
    PowerSourceDescription {
        kind: Some("InternalBattery".into()),
        state: Some(state.into()),
        is_present: Some(true),
        is_charging: is_charging.into(),
        current_capacity: Some(percent),
        max_capacity: Some(100),
    }
}

fn check(
    providing: &str,
    sources: &[PowerSourceDescription],
    source: impl Into<Option<PowerSource>>,
    battery: impl Into<Option<(u8, Charge)>>,
) {
    let battery = battery.into();
    let expected = PowerStatus {
        source: source.into(),
        battery: battery.map(|(percent, charge)| BatteryStatus { percent, charge }),
    };
    assert_eq!(
        power(Some(providing), sources),
        expected,
        "{providing} {sources:?}"
    );
}

#[test]
fn a_notebook_charges_and_drains() {
    let mains = PowerSource::Mains;
    for (is_charging, charge) in [
        (Some(true), Charge::Charging),
        (Some(false), Charge::Idle),
        (None, Charge::Unknown),
    ] {
        let battery = internal("AC Power", is_charging, 98);
        check("AC Power", &[battery], mains, (98, charge));
    }
    for (is_charging, charge) in [
        (Some(false), Charge::Discharging),
        (None, Charge::Discharging),
        (Some(true), Charge::Unknown),
    ] {
        let battery = internal("Battery Power", is_charging, 19);
        let found = (19, charge);
        check("Battery Power", &[battery], PowerSource::Battery, found);
    }
}

#[test]
fn the_charge_is_a_share_of_what_is_full() {
    let with = |current, max| PowerSourceDescription {
        current_capacity: current,
        max_capacity: max,
        ..internal("AC Power", false, 0)
    };
    let mains = PowerSource::Mains;
    for (current, max, percent) in [
        (137, 1281, Some(10)),
        (0, 100, Some(0)),
        // A battery that was calibrated holds more than it was thought to.
        (103, 100, Some(100)),
        (50, 0, None),
        (-1, 100, None),
        (50, -100, None),
        (i64::MAX, i64::MAX, None),
    ] {
        let battery = percent.map(|percent| (percent, Charge::Idle));
        check(
            "AC Power",
            &[with(Some(current), Some(max))],
            mains,
            battery,
        );
    }
    check("AC Power", &[with(None, Some(100))], mains, None);
    check("AC Power", &[with(Some(50), None)], mains, None);
}

#[test]
fn only_what_powers_the_machine_counts() {
    let mouse = PowerSourceDescription {
        kind: Some("Accessory Source".into()),
        ..internal("Battery Power", false, 7)
    };
    let taken_out = PowerSourceDescription {
        is_present: Some(false),
        ..internal("AC Power", false, 0)
    };
    let cut_off = internal("Off Line", false, 40);
    let nameless = PowerSourceDescription::default();
    let others = [mouse, taken_out, cut_off, nameless];
    let mains = PowerSource::Mains;
    check("AC Power", &[], mains, None);
    check("AC Power", &others, mains, None);
    let mut with_battery = others.to_vec();
    with_battery.push(internal("AC Power", true, 60));
    check("AC Power", &with_battery, mains, (60, Charge::Charging));
}

#[test]
fn a_ups_is_a_battery() {
    let ups = PowerSourceDescription {
        kind: Some("UPS".into()),
        is_present: None,
        ..internal("Battery Power", None, 80)
    };
    let found = (80, Charge::Discharging);
    let both = [ups, internal("Battery Power", false, 40)];
    check("UPS Power", &both[..1], PowerSource::Battery, found);
    let found = (60, Charge::Discharging);
    check("UPS Power", &both, PowerSource::Battery, found);
}

#[test]
fn a_source_of_another_name_is_not_known() {
    let battery = internal("AC Power", false, 100);
    check("Solar Power", &[battery], None, (100, Charge::Idle));
    assert_eq!(power(None, &[]), PowerStatus::default());
}
