//! What unpacked images take together, who makes room for others, and what stays of their layers.

use cdh::image::pull::PullerOptions;
use serde_json::json;

use super::fixture::{Guest, Image, Server};
use super::{as_root, content};

const MIB: u64 = 1 << 20;

fn guest(server: &Server, options: PullerOptions) -> Guest {
    let policy = json!({"default": [{"type": "insecureAcceptAnything"}], "transports": {}});
    Guest::with(server, &policy, "", false, options)
}

/// A server with images of 3 MiB that do not compress, and their names.
fn served(count: usize) -> (Server, Vec<String>) {
    let server = Server::start();
    let names = (0..count).map(|number| {
        server.skopeo(&Image::new(&content()).layout(), &format!("acme/{number}:v1"));
        server.name(&format!("acme/{number}:v1"))
    });
    let names = names.collect();
    (server, names)
}

fn blobs(guest: &Guest) -> usize {
    let path = guest.directory.path().join("work/blobs/sha256");
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

#[test]
fn evil_pulls_of_more_images_than_memory() {
    as_root(async {
        let (server, names) = served(3);
        let guest = guest(&server, PullerOptions { total: 8 * MIB, kept: 10, ..PullerOptions::default() });
        let pull = |index: usize| guest.pull(&names[index]);
        let mounted = |pulled: cdh::image::pull::Pulled| pulled.root(true).unwrap();
        // One is mounted, wherever that is; nobody has it in his hands any more.
        let first = mounted(pull(0).await.unwrap());
        drop(pull(1).await.unwrap());
        assert_eq!(pull(1).await.unwrap().received(), 0, "it is kept");
        // The third takes the place of the second, which nobody uses.
        drop(pull(2).await.unwrap());
        assert_eq!(pull(0).await.unwrap().received(), 0, "it is mounted");
        assert!(pull(1).await.unwrap().received() > 0, "it made room");
        // Two that are in use, and no room for another one: nothing of it is fetched.
        let second = pull(1).await.unwrap();
        assert_eq!(guest.refused(&names[2]).await, "PULL_ROOM");
        let second = mounted(second);
        assert_eq!(guest.refused(&names[2]).await, "PULL_ROOM");
        assert_eq!(blobs(&guest), 0);
        // What is mounted still reads.
        for root in [&first, &second] {
            let path = format!("/proc/self/fd/{}/usr/second", std::os::fd::AsRawFd::as_raw_fd(root));
            assert_eq!(std::fs::read(path).unwrap().len(), 3 << 20);
        }
        drop((first, second));
        drop(pull(2).await.unwrap());
    });
}

#[test]
fn evil_image_that_is_larger_than_memory() {
    as_root(async {
        let (server, names) = served(1);
        let small = PullerOptions { total: 2 * MIB, ..PullerOptions::default() };
        let none = guest(&server, small.clone());
        assert_eq!(none.refused(&names[0]).await, "PULL_ROOM");
        let said = none.pull(&names[0]).await.unwrap_err().to_string();
        assert!(said.ends_with(&format!("found {} that no image in use has", 2 * MIB)), "{said}");
        assert!(!none.directory.path().join("work").exists(), "nothing was fetched");
        // One that is small until it is unpacked.
        server.skopeo(&Image::new(&vec![0; 20 << 20]).layout(), "acme/zeros:v1");
        let zeros = guest(&server, small);
        assert_eq!(zeros.refused(&server.name("acme/zeros:v1")).await, "LAYER_CONTENT");
    });
}

#[test]
fn evil_pulls_at_once_of_more_than_memory() {
    as_root(async {
        let (server, names) = served(3);
        // Room for one at a time, and for one that is kept beside it.
        let guest = guest(&server, PullerOptions { total: 8 * MIB, ..PullerOptions::default() });
        let [one, two, three] = [0, 1, 2].map(|index| {
            let (puller, name) = (guest.puller.clone(), names[index].clone());
            tokio::spawn(async move {
                puller.pull(&name, super::soon(), &()).await.map(|pulled| pulled.received())
            })
        });
        for pulled in [one, two, three] {
            assert!(pulled.await.unwrap().unwrap() > 0);
        }
    });
}

#[test]
fn layers_go_when_their_image_is_unpacked() {
    as_root(async {
        let (server, names) = served(1);
        for keep_layers in [false, true] {
            let options = PullerOptions { keep_layers, kept: 0, ..PullerOptions::default() };
            let guest = guest(&server, options);
            assert!(guest.pull(&names[0]).await.unwrap().received() > 0);
            assert_eq!(blobs(&guest) > 0, keep_layers);
            // The image is not kept, so that it is made anew: of what there is.
            assert_eq!(guest.pull(&names[0]).await.unwrap().received() == 0, keep_layers);
        }
    });
}
