use super::*;

#[test]
fn the_template_shows_the_defaults() {
    for tee in [TeeKind::Tdx, TeeKind::Snp] {
        let template = Launch::template(tee);
        let expected = Launch { tee, ..Launch::default() };
        assert_eq!(Launch::parse(&template).unwrap(), expected);
        // With every `# member = value` uncommented it says the same.
        let uncommented: Vec<&str> = template
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
            .collect();
        let mut stated = Launch::parse(&uncommented.join("\n")).unwrap();
        let dates = std::mem::take(&mut stated.dates);
        assert_eq!(stated, expected);
        assert_eq!(dates.certificates().unwrap(), Dates::default().certificates().unwrap());
    }
}

#[test]
fn dates_are_seconds_in_utc() {
    let text = "[dates]\nissued = 1970-01-01T00:00:00Z\nexpires = 2026-11-22T01:02:03Z\n";
    let dates = Launch::parse(text).unwrap().dates;
    assert_eq!(dates.collateral(0).unwrap(), (0, 1_795_309_323));
    assert_eq!(Dates::default().collateral(10 * DAY).unwrap(), (9 * DAY, 40 * DAY));
    for text in ["2026-11-22", "2026-11-22T01:02:03", "2026-11-22T01:02:03+01:00", "2051-01-01T00:00:00Z"] {
        let dates = Launch::parse(&format!("[dates]\nissued = {text}\n")).unwrap().dates;
        assert!(dates.collateral(0).is_err(), "{text}");
    }
}

#[test]
fn launches_that_no_platform_has_are_refused() {
    for text in [
        "tea = \"tdx\"\n",
        "tee = \"sgx\"\n",
        "initdata_digest = \"0\"\n",
        "[tdx]\nquote = 3\n",
        "[tdx]\nquote = 4\nbody = \"1.5\"\n",
        "[tdx]\nmrtd = \"11\"\n",
        "[tdx]\ntcb_status = \"Fine\"\n",
        "[tdx]\ntee_tcb_svn = \"05010000000000000000000000000000\"\n",
        "[snp]\nreport_version = 6\n",
        "[snp]\nguest_policy = 0\n",
        "[snp]\ngeneration = \"rome\"\n",
        "[snp.tcb]\nucode = 1\n",
    ] {
        assert!(Launch::parse(text).is_err(), "{text}");
    }
    let chip_id = |byte: &str| format!("\"{}{}\"\n", "07".repeat(8), byte.repeat(56));
    let launch = |generation, byte| {
        Launch::parse(&format!("[snp]\ngeneration = \"{generation}\"\nchip_id = {}", chip_id(byte)))
    };
    assert!(launch("milan", "07").is_ok() && launch("turin", "00").is_ok());
    assert!(launch("milan", "00").is_err() && launch("turin", "07").is_err());
}
