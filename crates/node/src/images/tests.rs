//! Fetching from sources that break off, lie and resume.

use futures_util::stream;
use undine_api::node::ImageFiles;

use super::*;

/// Serves blobs; the source named `short` breaks off half-way, `liar` changes a byte.
struct Shelf(HashMap<String, Vec<u8>>);

#[async_trait]
impl Source for Shelf {
    async fn open(&self, source: &str, sha256: &str, offset: u64) -> Result<Body, String> {
        let mut blob = self.0.get(sha256).cloned().ok_or("404")?;
        match source {
            "short" => blob.truncate(blob.len() / 2),
            "liar" => blob[0] ^= 1,
            _ => {}
        }
        let rest = Bytes::from(blob.split_off(usize::try_from(offset).unwrap().min(blob.len())));
        Ok((offset, stream::iter([Ok(rest)]).boxed()))
    }
}

fn image(shelf: &mut Shelf) -> ImageManifest {
    let mut file = |name: &str, size: usize| {
        let blob: Vec<u8> = name.bytes().cycle().take(size).collect();
        let sha256 = hex::encode(Sha256::digest(&blob));
        shelf.0.insert(sha256.clone(), blob);
        ImageFile {
            file: name.into(),
            sha256,
            size: size as u64,
        }
    };
    ImageManifest {
        name: "test".into(),
        release: "bookworm".into(),
        hash: "ab".repeat(32),
        files: ImageFiles {
            root: file("root.squashfs", 5000),
            kernel: file("vmlinux", 300),
            initrd: file("initrd.img", 100),
        },
        cmdline: String::new(),
        cmdline_tcg: String::new(),
        data_format: 1,
        packages: vec![],
    }
}

async fn fetched(sources: &[&str]) -> (tempfile::TempDir, Arc<Images>, ImageStatus) {
    let dir = tempfile::tempdir().unwrap();
    let mut shelf = Shelf(HashMap::new());
    let manifest = image(&mut shelf);
    let images = Arc::new(Images::open(dir.path().join("images"), Arc::new(shelf)).unwrap());
    let wish = FetchImage {
        manifest: manifest.clone(),
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
    };
    images.fetch(wish).unwrap();
    for _ in 0..500 {
        let status = images.status(&manifest);
        if status.present || status.error.is_some() {
            return (dir, images, status);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the image neither came nor failed");
}

#[tokio::test]
async fn what_one_source_broke_off_another_one_completes() {
    let (_dir, images, status) = fetched(&["short", "good"]).await;
    assert!(status.present, "{:?}", status.error);
    assert_eq!((status.have, status.total), (5400, 5400));
    let local = images.local(&status.hash).unwrap();
    assert_eq!(std::fs::read(local.root).unwrap().len(), 5000);
    assert_eq!(images.present(), [status.hash]);
}

#[tokio::test]
async fn a_file_with_the_wrong_hash_is_never_kept() {
    let (dir, images, status) = fetched(&["liar"]).await;
    assert!(!status.present);
    assert!(status.error.unwrap().contains("was announced"));
    assert!(images.local(&status.hash).is_none());
    let left = std::fs::read_dir(dir.path().join("images").join(&status.hash))
        .unwrap()
        .count();
    assert_eq!(left, 0);
    let (_dir, _, status) = fetched(&["liar", "good"]).await;
    assert!(status.present);
}

#[tokio::test]
async fn a_description_that_leads_elsewhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut shelf = Shelf(HashMap::new());
    let mut manifest = image(&mut shelf);
    manifest.files.kernel.sha256 = "../../../etc/passwd".into();
    let images = Arc::new(Images::open(dir.path().join("images"), Arc::new(shelf)).unwrap());
    let problem = images
        .fetch(FetchImage {
            manifest,
            sources: vec![],
        })
        .unwrap_err();
    assert_eq!(
        (problem.status, problem.kind.as_str()),
        (422, "image-invalid")
    );
}
