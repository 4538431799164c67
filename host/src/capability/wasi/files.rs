//! `wasi:filesystem` for plugins: handles, rights and bounded blocking work around the directory operations in `tree`.
//!
//! It refuses, beyond what `tree` refuses, to make links of either kind (another program that reads the tree would follow them), to
//! rename from one slot to another, and to write synchronously (`sync` and `sync-data` do that when asked).
//!
//! The one idea: each function takes the handle's right, asks for the path (`Right::below`), and only then blocks, on one of the
//! plugin's few slots for that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{Timespec, Timestamps};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::WasiView;
use super::access::Taken;
use super::descriptor::{Descriptor, Node, OpenDirectory, OpenFile, PlacedFile, Right};
use super::errors::{FileError, code};
use super::file_streams::{CHUNK, FileReader, FileWriter, read_at};
use super::mount::Mount;
use super::quota::WriteAt;
use super::tree::{self, Listing, OpenRequest, Opened, Start};
use types::ErrorCode;

/// The plugin's handles are of a type that belongs to wasmtime's bindings; what the table keeps under the handle's number is ours.
type Handle = Resource<types::Descriptor>;
type ListingHandle = Resource<types::DirectoryEntryStream>;

/// A directory being listed.
#[derive(Clone)]
struct OpenListing {
    listing: Arc<Mutex<Listing>>,
    right: Arc<Right>,
    _place: Arc<Taken>,
}

impl WasiView<'_> {
    fn descriptor(&self, handle: &Handle) -> Result<&Descriptor, FsError> {
        Ok(self
            .table
            .get(&Resource::<Descriptor>::new_borrow(handle.rep()))?)
    }

    /// The file of a handle whose right still holds.
    fn usable_file(&self, handle: &Handle) -> Result<(OpenFile, Arc<Right>), FsError> {
        let descriptor = self.descriptor(handle)?;
        descriptor.right.check()?;
        Ok((descriptor.file()?.clone(), descriptor.right.clone()))
    }

    fn keep(&mut self, descriptor: Descriptor) -> Result<Handle, FsError> {
        Ok(Resource::new_own(self.table.push(descriptor)?.rep()))
    }
}

/// Runs directory work with the descriptor's starting directory, under a right that was asked.
async fn at<R: Send + 'static>(
    descriptor: &Descriptor,
    asked: &Right,
    work: impl FnOnce(&Mount, &Start) -> Result<R, FileError> + Send + 'static,
) -> FsResult<R> {
    let (mount, node) = (descriptor.right.mount().clone(), descriptor.node.clone());
    blocking(asked, move || work(&mount, &Start::of(&mount, &node)?)).await
}

/// Runs blocking work under a right that was asked.
async fn blocking<R: Send + 'static>(
    asked: &Right,
    work: impl FnOnce() -> Result<R, FileError> + Send + 'static,
) -> FsResult<R> {
    match asked.access().blocking().run(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            if let Some(reason) = error.denial() {
                asked.note_refusal(reason);
            }
            Err(error.code().into())
        }
        Err(error) => Err(code(&error).into()),
    }
}

impl preopens::Host for WasiView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Handle, String)>> {
        let access = self.parts.access.clone();
        let mut directories = Vec::new();
        for mount in access.mounts().iter() {
            let path = format!("/{}", mount.slot());
            let right = Arc::new(Right::root(access.clone(), mount.clone()));
            let handle = self.table.push(Descriptor {
                node: Node::Root,
                right,
            })?;
            directories.push((Resource::new_own(handle.rep()), path));
        }
        Ok(directories)
    }
}

impl types::Host for WasiView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self
            .table
            .get(&error)?
            .downcast_ref::<std::io::Error>()
            .map(code))
    }
}

impl types::HostDescriptor for WasiView<'_> {
    fn read_via_stream(
        &mut self,
        handle: Handle,
        offset: types::Filesize,
    ) -> FsResult<Resource<DynInputStream>> {
        let Descriptor { node, right } = self.descriptor(&handle)?.clone();
        let Node::File(file) = node else {
            return Err(ErrorCode::IsDirectory.into());
        };
        right.check()?;
        let stream: DynInputStream =
            Box::new(FileReader::new(file.for_reading()?.clone(), right, offset));
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        handle: Handle,
        offset: types::Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.write_stream(&handle, WriteAt::Offset(offset))
    }

    fn append_via_stream(&mut self, handle: Handle) -> FsResult<Resource<DynOutputStream>> {
        self.write_stream(&handle, WriteAt::End)
    }

    async fn advise(
        &mut self,
        handle: Handle,
        offset: types::Filesize,
        length: types::Filesize,
        advice: types::Advice,
    ) -> FsResult<()> {
        let (file, right) = self.usable_file(&handle)?;
        let file = file.file;
        let advice = match advice {
            types::Advice::Normal => rustix::fs::Advice::Normal,
            types::Advice::Sequential => rustix::fs::Advice::Sequential,
            types::Advice::Random => rustix::fs::Advice::Random,
            types::Advice::WillNeed => rustix::fs::Advice::WillNeed,
            types::Advice::DontNeed => rustix::fs::Advice::DontNeed,
            types::Advice::NoReuse => rustix::fs::Advice::NoReuse,
        };
        let length = std::num::NonZeroU64::new(length);
        blocking(&right, move || {
            Ok(rustix::fs::fadvise(&***file, offset, length, advice)
                .map_err(std::io::Error::from)?)
        })
        .await
    }

    async fn sync_data(&mut self, handle: Handle) -> FsResult<()> {
        self.sync_to_disk(&handle, std::fs::File::sync_data).await
    }

    async fn sync(&mut self, handle: Handle) -> FsResult<()> {
        self.sync_to_disk(&handle, std::fs::File::sync_all).await
    }

    async fn get_flags(&mut self, handle: Handle) -> FsResult<types::DescriptorFlags> {
        let descriptor = self.descriptor(&handle)?;
        descriptor.right.check()?;
        let (read, write, mutate) = match &descriptor.node {
            Node::File(file) => (file.readable, file.writable, false),
            Node::Root | Node::Directory(_) => {
                (true, false, descriptor.right.mount().is_writable())
            }
        };
        let named = [
            (read, types::DescriptorFlags::READ),
            (write, types::DescriptorFlags::WRITE),
            (mutate, types::DescriptorFlags::MUTATE_DIRECTORY),
        ];
        Ok(named
            .into_iter()
            .filter(|(set, _)| *set)
            .fold(types::DescriptorFlags::empty(), |flags, (_, flag)| {
                flags | flag
            }))
    }

    async fn get_type(&mut self, handle: Handle) -> FsResult<types::DescriptorType> {
        Ok(match self.descriptor(&handle)?.node {
            Node::File(_) => types::DescriptorType::RegularFile,
            Node::Root | Node::Directory(_) => types::DescriptorType::Directory,
        })
    }

    async fn set_size(&mut self, handle: Handle, size: types::Filesize) -> FsResult<()> {
        let (file, right) = self.usable_file(&handle)?;
        let file = file.for_writing()?.clone();
        blocking(&right, move || Ok(file.quota().set_length(&file, size)?)).await
    }

    async fn set_times(
        &mut self,
        handle: Handle,
        access: types::NewTimestamp,
        change: types::NewTimestamp,
    ) -> FsResult<()> {
        let times = timestamps(access, change)?;
        let descriptor = self.descriptor(&handle)?.clone();
        match &descriptor.node {
            Node::File(file) => {
                descriptor.right.check()?;
                let file = file.for_writing()?.clone();
                blocking(&descriptor.right, move || {
                    Ok(rustix::fs::futimens(&***file, &times).map_err(std::io::Error::from)?)
                })
                .await
            }
            Node::Root | Node::Directory(_) => {
                let asked = descriptor.right.below(".", true)?;
                at(&descriptor, &asked, move |_, start| {
                    tree::set_times(start, ".", false, &times)
                })
                .await
            }
        }
    }

    async fn read(
        &mut self,
        handle: Handle,
        length: types::Filesize,
        offset: types::Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        let (file, right) = self.usable_file(&handle)?;
        let file = file.for_reading()?.clone();
        let size = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
        let bytes = blocking(&right, move || Ok(read_at(&file, size, offset)?)).await?;
        let at_end = bytes.is_empty();
        Ok((bytes.into(), at_end))
    }

    async fn write(
        &mut self,
        handle: Handle,
        buffer: Vec<u8>,
        offset: types::Filesize,
    ) -> FsResult<types::Filesize> {
        let (file, right) = self.usable_file(&handle)?;
        let file = file.for_writing()?.clone();
        let length = buffer.len() as u64;
        blocking(&right, move || {
            Ok(file
                .quota()
                .write_at(&file, &buffer, WriteAt::Offset(offset))?)
        })
        .await?;
        Ok(length)
    }

    async fn read_directory(&mut self, handle: Handle) -> FsResult<ListingHandle> {
        let descriptor = self.descriptor(&handle)?;
        descriptor.right.check()?;
        let right = descriptor.right.clone();
        let place = Arc::new(self.parts.access.take_open_file().ok_or(ErrorCode::Busy)?);
        let listing = at(descriptor, &right, |_, start| tree::list(start)).await?;
        let listing = OpenListing {
            listing: Arc::new(Mutex::new(listing)),
            right,
            _place: place,
        };
        Ok(Resource::new_own(self.table.push(listing)?.rep()))
    }

    async fn create_directory_at(&mut self, handle: Handle, path: String) -> FsResult<()> {
        let descriptor = self.descriptor(&handle)?;
        let asked = descriptor.right.below(&path, true)?;
        at(descriptor, &asked, move |mount, start| {
            tree::create_directory(mount, start, &path)
        })
        .await
    }

    async fn stat(&mut self, handle: Handle) -> FsResult<types::DescriptorStat> {
        Ok(tree::describe(&self.metadata(&handle).await?))
    }

    async fn stat_at(
        &mut self,
        handle: Handle,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::DescriptorStat> {
        Ok(tree::describe(
            &self.metadata_at(&handle, flags, path).await?,
        ))
    }

    async fn set_times_at(
        &mut self,
        handle: Handle,
        flags: types::PathFlags,
        path: String,
        access: types::NewTimestamp,
        change: types::NewTimestamp,
    ) -> FsResult<()> {
        let times = timestamps(access, change)?;
        let descriptor = self.descriptor(&handle)?;
        let asked = descriptor.right.below(&path, true)?;
        at(descriptor, &asked, move |_, start| {
            tree::set_times(start, &path, follows(flags), &times)
        })
        .await
    }

    async fn link_at(
        &mut self,
        handle: Handle,
        _flags: types::PathFlags,
        _old_path: String,
        new_descriptor: Handle,
        new_path: String,
    ) -> FsResult<()> {
        self.descriptor(&handle)?;
        Err(self
            .descriptor(&new_descriptor)?
            .right
            .refuse_link(&new_path)
            .into())
    }

    async fn open_at(
        &mut self,
        handle: Handle,
        path_flags: types::PathFlags,
        path: String,
        open_flags: types::OpenFlags,
        flags: types::DescriptorFlags,
    ) -> FsResult<Handle> {
        let synchronous = types::DescriptorFlags::FILE_INTEGRITY_SYNC
            | types::DescriptorFlags::DATA_INTEGRITY_SYNC
            | types::DescriptorFlags::REQUESTED_WRITE_SYNC;
        if flags.intersects(synchronous) {
            return Err(ErrorCode::Unsupported.into());
        }
        let ask = OpenRequest {
            read: flags.contains(types::DescriptorFlags::READ),
            write: flags.contains(types::DescriptorFlags::WRITE),
            create: open_flags.contains(types::OpenFlags::CREATE),
            exclusive: open_flags.contains(types::OpenFlags::EXCLUSIVE),
            truncate: open_flags.contains(types::OpenFlags::TRUNCATE),
            directory: open_flags.contains(types::OpenFlags::DIRECTORY),
            follow: follows(path_flags),
        };
        if ask.directory && (ask.create || ask.exclusive || ask.truncate) {
            return Err(ErrorCode::Invalid.into());
        }
        let Descriptor { node, right } = self.descriptor(&handle)?.clone();
        let right = Arc::new(right.below(&path, ask.changes())?);
        let place = self.parts.access.take_open_file().ok_or(ErrorCode::Busy)?;
        let mount = right.mount().clone();
        let opened = blocking(&right, move || tree::open(&mount, &node, &path, ask)).await?;
        let node = match opened {
            Opened::Root => Node::Root,
            Opened::Directory(handle) => Node::Directory(OpenDirectory {
                handle,
                _place: Arc::new(place),
            }),
            Opened::File(file) => Node::File(OpenFile {
                file: Arc::new(PlacedFile {
                    file,
                    _place: place,
                }),
                // A file opened for nothing is opened for reading, as elsewhere.
                readable: ask.read || !ask.write,
                writable: ask.write,
            }),
        };
        self.keep(Descriptor { node, right })
    }

    async fn readlink_at(&mut self, handle: Handle, path: String) -> FsResult<String> {
        let descriptor = self.descriptor(&handle)?;
        let asked = descriptor.right.below(&path, false)?;
        at(descriptor, &asked, move |_, start| {
            tree::read_link(start, &path)
        })
        .await
    }

    async fn remove_directory_at(&mut self, handle: Handle, path: String) -> FsResult<()> {
        let descriptor = self.descriptor(&handle)?;
        let asked = descriptor.right.below(&path, true)?;
        at(descriptor, &asked, move |mount, start| {
            tree::remove_directory(mount, start, &path)
        })
        .await
    }

    async fn rename_at(
        &mut self,
        handle: Handle,
        old: String,
        new_handle: Handle,
        new: String,
    ) -> FsResult<()> {
        let from = self.descriptor(&handle)?;
        let to = self.descriptor(&new_handle)?.clone();
        let asked = from.right.below(&old, true)?;
        to.right.below(&new, true)?;
        if !Arc::ptr_eq(from.right.mount(), to.right.mount()) {
            return Err(ErrorCode::CrossDevice.into());
        }
        at(from, &asked, move |mount, start| {
            tree::rename(mount, start, &old, &Start::of(mount, &to.node)?, &new)
        })
        .await
    }

    async fn symlink_at(&mut self, handle: Handle, _target: String, path: String) -> FsResult<()> {
        Err(self.descriptor(&handle)?.right.refuse_link(&path).into())
    }

    async fn unlink_file_at(&mut self, handle: Handle, path: String) -> FsResult<()> {
        let descriptor = self.descriptor(&handle)?;
        let asked = descriptor.right.below(&path, true)?;
        at(descriptor, &asked, move |mount, start| {
            tree::remove_file(mount, start, &path)
        })
        .await
    }

    async fn is_same_object(&mut self, one: Handle, other: Handle) -> wasmtime::Result<bool> {
        let identity = |metadata: &std::fs::Metadata| {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino())
        };
        let (Ok(one), Ok(other)) = (self.metadata(&one).await, self.metadata(&other).await) else {
            return Ok(false);
        };
        Ok(identity(&one) == identity(&other))
    }

    async fn metadata_hash(&mut self, handle: Handle) -> FsResult<types::MetadataHashValue> {
        Ok(tree::identity(&self.metadata(&handle).await?))
    }

    async fn metadata_hash_at(
        &mut self,
        handle: Handle,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::MetadataHashValue> {
        Ok(tree::identity(
            &self.metadata_at(&handle, flags, path).await?,
        ))
    }

    fn drop(&mut self, handle: Handle) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Descriptor>::new_own(handle.rep()))?;
        Ok(())
    }
}

impl WasiView<'_> {
    fn write_stream(
        &mut self,
        handle: &Handle,
        at: WriteAt,
    ) -> FsResult<Resource<DynOutputStream>> {
        let Descriptor { node, right } = self.descriptor(handle)?.clone();
        let Node::File(file) = node else {
            return Err(ErrorCode::IsDirectory.into());
        };
        right.check()?;
        let stream: DynOutputStream =
            Box::new(FileWriter::new(file.for_writing()?.clone(), right, at));
        Ok(self.table.push(stream)?)
    }

    async fn sync_to_disk(
        &mut self,
        handle: &Handle,
        sync: fn(&std::fs::File) -> std::io::Result<()>,
    ) -> FsResult<()> {
        let descriptor = self.descriptor(handle)?.clone();
        descriptor.right.check()?;
        match &descriptor.node {
            Node::File(OpenFile { file, .. }) => {
                let file = file.clone();
                blocking(&descriptor.right, move || Ok(sync(&file)?)).await
            }
            Node::Root | Node::Directory(_) => {
                at(&descriptor, &descriptor.right, |_, start| {
                    tree::sync_directory(start)
                })
                .await
            }
        }
    }

    async fn metadata(&mut self, handle: &Handle) -> FsResult<std::fs::Metadata> {
        let Descriptor { node, right } = self.descriptor(handle)?.clone();
        right.check()?;
        let mount = right.mount().clone();
        blocking(&right, move || tree::stat_node(&mount, &node)).await
    }

    async fn metadata_at(
        &mut self,
        handle: &Handle,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<std::fs::Metadata> {
        let descriptor = self.descriptor(handle)?;
        let asked = descriptor.right.below(&path, false)?;
        at(descriptor, &asked, move |_, start| {
            tree::stat(start, &path, follows(flags))
        })
        .await
    }
}

impl types::HostDirectoryEntryStream for WasiView<'_> {
    async fn read_directory_entry(
        &mut self,
        handle: ListingHandle,
    ) -> FsResult<Option<types::DirectoryEntry>> {
        let OpenListing {
            listing,
            right,
            _place,
        } = self
            .table
            .get(&Resource::<OpenListing>::new_borrow(handle.rep()))?
            .clone();
        right.check()?;
        let at_hand = listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .at_hand();
        match at_hand {
            Some(entry) => Ok(Some(entry)),
            None => {
                blocking(&right, move || {
                    listing
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .read_on()
                })
                .await
            }
        }
    }

    fn drop(&mut self, handle: ListingHandle) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<OpenListing>::new_own(handle.rep()))?;
        Ok(())
    }
}

fn follows(flags: types::PathFlags) -> bool {
    flags.contains(types::PathFlags::SYMLINK_FOLLOW)
}

fn timestamps(
    access: types::NewTimestamp,
    change: types::NewTimestamp,
) -> Result<Timestamps, ErrorCode> {
    Ok(Timestamps {
        last_access: timestamp(access)?,
        last_modification: timestamp(change)?,
    })
}

fn timestamp(new: types::NewTimestamp) -> Result<Timespec, ErrorCode> {
    let since_epoch = match new {
        types::NewTimestamp::NoChange => {
            return Ok(Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_OMIT,
            });
        }
        types::NewTimestamp::Now => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| ErrorCode::Overflow)?,
        types::NewTimestamp::Timestamp(time) if time.nanoseconds < 1_000_000_000 => {
            std::time::Duration::new(time.seconds, time.nanoseconds)
        }
        types::NewTimestamp::Timestamp(_) => return Err(ErrorCode::Invalid),
    };
    Ok(Timespec {
        tv_sec: i64::try_from(since_epoch.as_secs()).map_err(|_| ErrorCode::Overflow)?,
        tv_nsec: since_epoch.subsec_nanos().into(),
    })
}
