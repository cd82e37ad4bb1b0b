use super::{HostFacts, SwapTable, mem_available};
use crate::testing::swap_text;

#[test]
fn swap_areas_are_counted() {
    assert_eq!(SwapTable::parse(&swap_text(0)).unwrap().areas(), 0);
    assert_eq!(SwapTable::parse(&swap_text(2)).unwrap().areas(), 2);
}

#[test]
fn unknown_swap_table_is_refused() {
    for text in ["", "\n", "/dev/vda2 partition 1 0 -2\n"] {
        assert_eq!(SwapTable::parse(text).unwrap_err().code(), "MEM-007", "{text:?}");
    }
}

#[test]
fn available_memory_is_read() {
    assert_eq!(mem_available("MemTotal: 9 kB\nMemAvailable:    24 kB\n"), Some(24 * 1024));
    for text in ["", "MemTotal: 9 kB\n", "MemAvailable: x kB\n", "MemAvailable: 18446744073709551615 kB\n"] {
        assert_eq!(mem_available(text), None, "{text:?}");
    }
}

#[test]
fn facts_of_this_machine_are_read() {
    assert!(HostFacts::read().unwrap().available_bytes() > 0);
}
