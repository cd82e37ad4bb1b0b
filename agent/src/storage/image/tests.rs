use super::*;

const NAME: &str = "registry.example/acme/server:v1";

fn storage(source: &str, metadata: &str) -> Storage {
    Storage {
        driver: DRIVER.to_owned(),
        source: source.to_owned(),
        fstype: "overlay".to_owned(),
        driver_options: vec![format!("{DRIVER}={{\"metadata\":{metadata}}}")],
        mount_point: "/run/kata-containers/one/rootfs".to_owned(),
        ..Storage::default()
    }
}

fn annotations(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn code(storage: &Storage, pairs: &[(&str, &str)]) -> &'static str {
    wanted(storage, &annotations(pairs)).map_or_else(|error| error.code(), |_| "OK")
}

fn permission<'a>(
    hub: &'a DataHub,
    annotations: &'a HashMap<String, String>,
    log: &'a Log,
) -> Permission<'a> {
    Permission { hub, annotations, deadline: Instant::now(), tee_active: false, log }
}

#[test]
fn what_runtimes_ask_for() {
    let same = format!("{{\"{}\":\"{NAME}\",\"other\":\"x\"}}", IMAGE_NAMES[0]);
    let asked = wanted(&storage(NAME, &same), &annotations(&[(IMAGE_NAMES[0], NAME)])).unwrap();
    assert_eq!(asked, Wanted::Image(NAME.to_owned()));
    for metadata in ["{}", "null"] {
        assert_eq!(
            wanted(&storage(NAME, metadata), &HashMap::new()).unwrap(),
            Wanted::Image(NAME.to_owned())
        );
    }
    let bare = Storage { driver_options: Vec::new(), ..storage(NAME, "{}") };
    assert_eq!(wanted(&bare, &HashMap::new()).unwrap(), Wanted::Image(NAME.to_owned()));
    for key in CONTAINER_TYPES {
        let pause = storage("pause", &format!("{{\"{key}\":\"sandbox\"}}"));
        assert_eq!(wanted(&pause, &annotations(&[(key, "sandbox")])).unwrap(), Wanted::Pause);
    }
}

#[test]
fn evil_host_another_image_than_the_policy_saw() {
    let other = "registry.example/acme/other:v1";
    for key in IMAGE_NAMES {
        let metadata = format!("{{\"{key}\":\"{other}\"}}");
        assert_eq!(code(&storage(NAME, &metadata), &[]), "STORAGE_IMAGE", "{key}");
        assert_eq!(code(&storage(NAME, "{}"), &[(key, other)]), "STORAGE_IMAGE", "{key}");
        assert_eq!(code(&storage(NAME, &metadata), &[(key, NAME)]), "STORAGE_IMAGE", "{key}");
    }
    assert_eq!(code(&storage("", "{}"), &[]), "STORAGE_IMAGE");
}

#[test]
fn evil_host_pause_program_for_another_container() {
    for key in CONTAINER_TYPES {
        let metadata = format!("{{\"{key}\":\"sandbox\"}}");
        assert_eq!(code(&storage(NAME, &metadata), &[(key, "container")]), "STORAGE_IMAGE");
        assert_eq!(code(&storage(NAME, &metadata), &[]), "STORAGE_IMAGE");
        assert_eq!(code(&storage(NAME, "{}"), &[(key, "sandbox")]), "STORAGE_IMAGE");
    }
}

#[test]
fn evil_host_image_option_of_another_form() {
    let with = |options: &[&str]| {
        let driver_options = options.iter().map(|text| format!("{DRIVER}={text}")).collect();
        code(&Storage { driver_options, ..storage(NAME, "{}") }, &[])
    };
    assert_eq!(with(&["{}"]), "OK");
    for text in ["", "[]", "{\"metadata\":[]}", "{\"metadata\":{\"a\":1}}", "{\"more\":1}"] {
        assert_eq!(with(&[text]), "STORAGE_IMAGE", "{text}");
    }
    assert_eq!(with(&["{}", "{}"]), "STORAGE_IMAGE");
    let long = format!("{{\"metadata\":{{\"a\":\"{}\"}}}}", "x".repeat(MAXIMUM_OPTION_BYTES));
    assert_eq!(with(&[&long]), "STORAGE_IMAGE");
}

#[tokio::test]
async fn evil_host_image_storage_that_could_not_be_mounted() {
    let (hub, annotations, log) = (DataHub::absent("none"), HashMap::new(), Log::console());
    log.set_level(Level::Critical);
    let own = ContainerId::parse("one").unwrap();
    let permission = permission(&hub, &annotations, &log);
    let code = async |storages: &[Storage]| {
        Images::obtain(storages, &own, &permission).await.map_or_else(|error| error.code(), |_| "OK")
    };
    let good = storage(NAME, "{}");
    assert_eq!(code(&[]).await, "OK");
    assert_eq!(code(std::slice::from_ref(&good)).await, "CDH_ABSENT");
    assert_eq!(code(&[good.clone(), good.clone()]).await, "STORAGE_IMAGE");
    let elsewhere = Storage { mount_point: "/run/kata-containers/two/rootfs".to_owned(), ..good.clone() };
    assert_eq!(code(&[elsewhere]).await, "STORAGE_PLACE");
    let disk = Storage { fstype: "ext4".to_owned(), ..good.clone() };
    assert_eq!(code(&[disk]).await, "STORAGE_FILE_SYSTEM");
    let option = Storage { options: vec!["upperdir=/x".to_owned()], ..good.clone() };
    assert_eq!(code(&[option]).await, "STORAGE_OPTION");
    let driver_options = vec!["encryption_key=ephemeral".to_owned()];
    assert_eq!(code(&[Storage { driver_options, ..good }]).await, "STORAGE_OPTION");
}
