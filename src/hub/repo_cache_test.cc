#include "hub/repo_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "base/files_testing.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;

const std::string kCommit(40, 'c');
const std::string kOther(40, 'd');
const auto kWait = [] { return true; };

class RepoCacheTest : public testing::Test {
 protected:
  const TemporaryFolder folder_;
  const std::string root_ = folder_.path() + "/models--org--name";
  const RepoCache cache_{folder_.path(), "org/name"};
};

TEST_F(RepoCacheTest, FoldersAreNamedAsHuggingfaceHubNamesThem) {
  EXPECT_EQ(cache_.snapshot_dir(kCommit), root_ + "/snapshots/" + kCommit);
  EXPECT_EQ(cache_.blob_path("abc"), root_ + "/blobs/abc");
  EXPECT_EQ(cache_.incomplete_path("abc"), root_ + "/blobs/abc.incomplete");
  EXPECT_EQ(RepoCache(folder_.path(), "gpt2").blob_path("x"),
            folder_.path() + "/models--gpt2/blobs/x");
}

TEST_F(RepoCacheTest, ARevisionIsWhatWasRecorded) {
  EXPECT_EQ(cache_.commit_of("main"), std::nullopt);
  EXPECT_EQ(cache_.commit_of(kCommit), kCommit);
  ASSERT_TRUE(cache_.set_commit("main", kCommit).ok());
  ASSERT_TRUE(cache_.set_commit("refs/pr/3", kOther).ok());
  EXPECT_EQ(read_file(root_ + "/refs/main"), kCommit);
  EXPECT_EQ(cache_.commit_of("main"), kCommit);
  EXPECT_EQ(cache_.commit_of("refs/pr/3"), kOther);
  ASSERT_TRUE(cache_.set_commit("main", kOther).ok());
  EXPECT_EQ(cache_.commit_of("main"), kOther);
  EXPECT_EQ(std::distance(fs::directory_iterator(root_ + "/refs"), {}), 2) << "no temporary files";
  folder_.write("models--org--name/refs/main", "../../elsewhere");
  EXPECT_EQ(cache_.commit_of("main"), std::nullopt);
}

TEST_F(RepoCacheTest, LinksAreRelativeAndThoseThatLeadNowhereAreReplaced) {
  ASSERT_TRUE(cache_.make_folders(kCommit, "sub/a.json").ok());
  folder_.write("models--org--name/blobs/etag", "text");
  const std::string path = cache_.snapshot_dir(kCommit) + "/sub/a.json";
  ASSERT_EQ(symlink("nowhere", path.c_str()), 0);
  EXPECT_FALSE(cache_.has_file(kCommit, "sub/a.json"));
  EXPECT_TRUE(cache_.files(kCommit).empty());
  ASSERT_TRUE(cache_.link(kCommit, "sub/a.json", "etag").ok());
  EXPECT_EQ(fs::read_symlink(path), "../../../blobs/etag");
  EXPECT_EQ(read_file(path), "text");
  EXPECT_THAT(cache_.files(kCommit), testing::ElementsAre("sub/a.json"));
  EXPECT_TRUE(cache_.link(kCommit, "sub/a.json", "etag").ok()) << "as another process left it";
}

TEST_F(RepoCacheTest, ALockIsHeldByOne) {
  ASSERT_TRUE(cache_.make_folders(kCommit, "a").ok());
  auto first = cache_.lock("etag", kWait);
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(fs::exists(folder_.path() + "/.locks/models--org--name/etag.lock"));
  const auto gave_up = cache_.lock("etag", [] { return false; });
  ASSERT_FALSE(gave_up.ok());
  EXPECT_EQ(gave_up.error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(cache_.lock("another", kWait).ok());
  std::optional<RepoCache::Lock> held(std::move(*first));
  int waited = 0;
  const auto second = cache_.lock("etag", [&] {
    if (++waited == 2) held.reset();
    return true;
  });
  EXPECT_TRUE(second.ok());
  EXPECT_EQ(waited, 2);
}

TEST_F(RepoCacheTest, ALockWhoseFileWasRemovedMeanwhileIsTakenAnew) {
  ASSERT_TRUE(cache_.make_folders(kCommit, "a").ok());
  std::optional<RepoCache::Lock> held(std::move(*cache_.lock("etag", kWait)));
  const std::string path = folder_.path() + "/.locks/models--org--name/etag.lock";
  const auto second = cache_.lock("etag", [&] {
    fs::remove(path);
    held.reset();
    return true;
  });
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(fs::exists(path));
  EXPECT_FALSE(cache_.lock("etag", [] { return false; }).ok());
}

TEST_F(RepoCacheTest, AFolderThatCannotBeMadeIsNamed) {
  folder_.write("models--org--name", "a file in the way");
  const Status status = cache_.make_folders(kCommit, "a");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_THAT(status.error().message, testing::StartsWith(root_ + "/blobs: "));
  EXPECT_THAT(system_error("/x", "cannot", EACCES).message, testing::HasSubstr("HF_HUB_CACHE"));
}

}  // namespace
}  // namespace pagemill
