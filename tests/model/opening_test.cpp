// Which folder, cache entry or word is opened, shards and their index, mapped weights, hashes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <thread>

#include "engine/base/json.h"
#include "engine/model/checkpoint.h"
#include "engine/model/hf_cache.h"
#include "engine/model/shards.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const fs::path kBase = fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/hostile/model/base";
const fs::path kSharded = fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/hostile/model/base_sharded";

std::string refusal(const fs::path& model) {
  const auto checkpoint = open_checkpoint(model.string());
  return checkpoint ? "opened" : checkpoint.error().message();
}

class Variable {  // an environment variable for the length of a test
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value.empty() ? unsetenv(name) : setenv(name, value.c_str(), 1);
  }
  ~Variable() { old_.empty() ? unsetenv(name_) : setenv(name_, old_.c_str(), 1); }

 private:
  const char* name_;
  std::string old_;
};

class OpeningTest : public testing::Test {
 protected:
  OpeningTest() { fs::copy(kBase, model_); }
  TemporaryFolder folder_;
  fs::path model_ = folder_.path() / "model";
};

TEST_F(OpeningTest, AFolderIsNamedByItself) {
  const auto checkpoint = open_checkpoint(model_.string());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  EXPECT_EQ(checkpoint->name, "model");
  EXPECT_EQ(checkpoint->revision, "");
  EXPECT_EQ(checkpoint->config_json, file_content(kBase / "config.json"));
  EXPECT_FALSE(checkpoint->sampling.do_sample);  // no generation_config.json: greedy
  EXPECT_EQ(open_checkpoint(model_.string() + "/")->name, "model");
}

TEST_F(OpeningTest, GenerationConfigSetsSamplingAndEndTokens) {
  put_file(model_ / "generation_config.json",
           R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "eos_token_id": [3, 5]})");
  const auto checkpoint = open_checkpoint(model_.string());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  EXPECT_TRUE(checkpoint->sampling.do_sample);
  EXPECT_FLOAT_EQ(checkpoint->sampling.temperature, 0.6f);
  EXPECT_FLOAT_EQ(checkpoint->sampling.top_p, 0.9f);
  EXPECT_EQ(checkpoint->sampling.top_k, 20);
  EXPECT_THAT(checkpoint->plan.eos_ids, testing::ElementsAre(3, 5));
}

TEST_F(OpeningTest, SaysWhatIsNotThere) {
  EXPECT_THAT(refusal("no/such/folder"), AllOf(HasSubstr("is not a folder"), HasSubstr("or demo")));
  EXPECT_THAT(refusal(model_ / "config.json"), HasSubstr("is a file, needed is a .gguf file or the folder that holds config.json"));
  fs::remove(model_ / "model.safetensors");
  EXPECT_THAT(refusal(model_),
              HasSubstr("has neither model.safetensors nor model.safetensors.index.json. Is the download complete?"));
  put_file(model_ / "pytorch_model.bin", "PK");
  EXPECT_THAT(refusal(model_),
              AllOf(HasSubstr("pytorch_model.bin: is a pickle"), HasSubstr("Convert the checkpoint to safetensors")));
  fs::remove(model_ / "pytorch_model.bin");
  put_file(model_ / "model-q4.gguf", "GGUF");
  EXPECT_THAT(refusal(model_), HasSubstr("model-q4.gguf: at byte 4: needs 4 bytes, the file has 0 more. Was it cut?"));
  fs::copy(model_ / "model-q4.gguf", model_ / "model-q8.gguf");
  EXPECT_THAT(refusal(model_), HasSubstr("holds 2 GGUF models"));
  fs::remove(model_ / "model-q4.gguf");
  fs::remove(model_ / "model-q8.gguf");
  fs::remove(model_ / "config.json");
  EXPECT_THAT(refusal(model_), HasSubstr("config.json: is not in"));
}

TEST_F(OpeningTest, ConfigIsLimitedTo4MB) {
  put_file(model_ / "config.json", std::string((4 << 20) + 1, ' '));
  EXPECT_THAT(refusal(model_), HasSubstr("config.json: has 4194305 bytes, more than the limit of 4194304"));
}

TEST_F(OpeningTest, AWeightFileThatLeadsOutIsRefused) {
  fs::rename(model_ / "model.safetensors", folder_.path() / "elsewhere");
  fs::create_symlink("../elsewhere", model_ / "model.safetensors");
  EXPECT_THAT(refusal(model_), HasSubstr("model.safetensors: is a link that leads out of the folder"));
}

class CacheTest : public testing::Test {
 protected:
  CacheTest() {
    fs::create_directories(snapshot_);
    fs::create_directories(entry_ / "blobs");
    fs::create_directories(entry_ / "refs");
    put_file(entry_ / "refs" / "main", "0123abcd");
    for (const char* name : {"config.json", "model.safetensors"}) {
      fs::copy(kBase / name, entry_ / "blobs" / (std::string("blob-") + name));
      fs::create_symlink(std::string("../../blobs/blob-") + name, snapshot_ / name);
    }
  }
  TemporaryFolder folder_;
  fs::path hub_ = folder_.path() / "hub";
  fs::path entry_ = hub_ / "models--some-org--Some.Model_1";
  fs::path snapshot_ = entry_ / "snapshots" / "0123abcd";
  Variable hub_cache_{"HF_HUB_CACHE", hub_.string()};
};

TEST_F(CacheTest, OpensByNameWithItsRevision) {
  const auto checkpoint = open_checkpoint("some-org/Some.Model_1");
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  EXPECT_EQ(checkpoint->name, "some-org/Some.Model_1");
  EXPECT_EQ(checkpoint->revision, "0123abcd");
  EXPECT_EQ(checkpoint->folder, fs::canonical(snapshot_));
  EXPECT_TRUE(WeightStore::open(*checkpoint));
  EXPECT_TRUE(open_checkpoint(snapshot_.string()));     // the snapshot's folder itself
  const auto entry = open_checkpoint(entry_.string());  // the entry's folder
  ASSERT_TRUE(entry) << entry.error().message();
  EXPECT_EQ(entry->name, "some-org/Some.Model_1");
  EXPECT_EQ(entry->revision, "0123abcd");
}

TEST_F(CacheTest, TheRootIsFoundAsHuggingFaceDoes) {
  EXPECT_EQ(hf_cache_root(), hub_);
  const Variable no_hub("HF_HUB_CACHE", ""), hf_home("HF_HOME", "/hf"), xdg("XDG_CACHE_HOME", "/xdg"),
      home("HOME", "/home/me");
  EXPECT_EQ(hf_cache_root(), "/hf/hub");
  const Variable no_hf_home("HF_HOME", "");
  EXPECT_EQ(hf_cache_root(), "/xdg/huggingface/hub");
  const Variable no_xdg("XDG_CACHE_HOME", "");
  EXPECT_EQ(hf_cache_root(), "/home/me/.cache/huggingface/hub");
}

TEST_F(CacheTest, UnfinishedEntriesAreRefusedWithTheReason) {
  const std::string name = "some-org/Some.Model_1";
  put_file(entry_ / "blobs" / "77.incomplete", "");
  EXPECT_THAT(refusal(name),
              AllOf(HasSubstr("a download is unfinished (77.incomplete)"), HasSubstr("Finish the download")));
  fs::remove(entry_ / "blobs" / "77.incomplete");
  fs::remove(entry_ / "blobs" / "blob-model.safetensors");
  EXPECT_THAT(refusal(name),
              HasSubstr("model.safetensors: is a link to a blob that is not there. The download is unfinished"));
  fs::remove_all(snapshot_);
  EXPECT_THAT(refusal(name), HasSubstr("revision 0123abcd is not"));
  for (const char* text : {"", "../../..", "a/b", "x y", "main\nmore"}) {
    put_file(entry_ / "refs" / "main", text);
    EXPECT_THAT(refusal(name), HasSubstr("which is no revision")) << text;
  }
  fs::remove(entry_ / "refs" / "main");
  EXPECT_THAT(refusal(name), HasSubstr("main: is not in"));
  EXPECT_THAT(refusal("some-org/other"), AllOf(HasSubstr("is neither a folder nor in the Hugging Face cache"),
                                               HasSubstr("hf download some-org/other")));
}

TEST_F(CacheTest, NamesThatAreNoRepositoriesAreNotLookedUp) {
  EXPECT_TRUE(is_repository_name("org/Name-1.5_b"));
  for (const char* text : {"org", "org/", "/name", "a/b/c", "../x", "x/..", "or g/x", "org/na\x1bme", ""})
    EXPECT_FALSE(is_repository_name(text)) << text;
}

class ShardsTest : public testing::Test {
 protected:
  ShardsTest() { fs::copy(kSharded, model_); }
  TemporaryFolder folder_;
  fs::path model_ = folder_.path() / "model";
  fs::path second_ = model_ / "model-00002-of-00002.safetensors";
  const char* index_ = "model.safetensors.index.json";
};

TEST_F(ShardsTest, HoldTheSamePlanAsOneFile) {
  const auto one = open_checkpoint(kBase.string());
  const auto two = open_checkpoint(model_.string());
  ASSERT_TRUE(one && two);
  EXPECT_EQ(two->shards.size(), 2u);
  EXPECT_EQ(one->weight_bytes(), two->weight_bytes());
  EXPECT_EQ(one->plan.parameters(), two->plan.parameters());
  EXPECT_NE(two->find("lm_head.weight")->shard, two->find("model.embed_tokens.weight")->shard);
}

TEST_F(ShardsTest, ATensorInTwoShardsMustBeEqualInBoth) {
  // A third tensor table: the second shard with one more tensor that the first one also holds.
  const auto copy_of_norm = [&](char value) {
    const std::string file = file_content(second_);
    const size_t length = static_cast<unsigned char>(file[0]) | static_cast<size_t>(static_cast<unsigned char>(file[1]))
                                                                    << 8;
    Json header = Json::parse(file.substr(8, length));
    const size_t data = file.size() - 8 - length;
    header["model.norm.weight"] = {{"dtype", "BF16"}, {"shape", {4}}, {"data_offsets", {data, data + 8}}};
    put_file(second_, safetensors_of(header.dump(), file.substr(8 + length) + std::string(8, value)));
  };
  copy_of_norm('\0');  // the base is all zeros
  const auto equal = open_checkpoint(model_.string());
  ASSERT_TRUE(equal) << equal.error().message();
  EXPECT_EQ(equal->find("model.norm.weight")->shard, 0);  // where the index puts it
  fs::copy(kSharded / second_.filename(), second_, fs::copy_options::overwrite_existing);
  copy_of_norm('x');
  EXPECT_THAT(refusal(model_), HasSubstr("model-00002-of-00002.safetensors: tensor \"model.norm.weight\" is also in "
                                         "model-00001-of-00002.safetensors, with other content."));
}

TEST_F(ShardsTest, UnmappedTensorsAndAWrongTotalSizeAreTolerated) {
  Json index = Json::parse(file_content(model_ / index_));
  index["metadata"]["total_size"] = 1;
  put_file(model_ / index_, index.dump());
  EXPECT_EQ(refusal(model_), "opened");
  index["weight_map"].erase("lm_head.weight");  // stays in its shard, as an MTP layer would
  put_file(model_ / index_, index.dump());
  EXPECT_EQ(refusal(model_), "opened");
}

TEST_F(ShardsTest, AMissingOrCutShardIsNamed) {
  fs::resize_file(second_, fs::file_size(second_) - 1);
  EXPECT_THAT(refusal(model_), AllOf(HasSubstr("model-00002-of-00002.safetensors: tensor"), HasSubstr("Was it cut?")));
  fs::remove(second_);
  EXPECT_THAT(refusal(model_), HasSubstr("model-00002-of-00002.safetensors: is not in"));
}

class WeightsTest : public testing::Test {
 protected:
  // Two bytes of tensor n are both n: the smallest file in which a view shows where it looks.
  WeightsTest() {
    tensors_ = {{.name = "a", .dtype = DType::kU8, .shape = {3}},
                {.name = "b", .dtype = DType::kBF16, .shape = {2, 2, 3}},
                {.name = "c", .dtype = DType::kF32, .shape = {0, 4}}};
    put_file(folder_.path() / "model.safetensors", safetensors_with(tensors_));
    checkpoint_.folder = folder_.path();
    checkpoint_.shards = {"model.safetensors"};
    checkpoint_.tensors = tensors_;
  }
  TemporaryFolder folder_;
  std::vector<TensorInfo> tensors_;
  Checkpoint checkpoint_;
};

TEST_F(WeightsTest, ViewsLookWhereTheReferenceSays) {
  const auto weights = *WeightStore::open(checkpoint_);
  const auto whole = weights->view({.name = "b", .rows = 4, .cols = 3, .dtype = DType::kBF16});
  ASSERT_TRUE(whole) << whole.error().message();
  EXPECT_EQ(whole->rows, 4);
  // Odd alignment on purpose: three bytes of "a" come first.
  EXPECT_EQ(whole->data[0], std::byte{1});
  EXPECT_EQ(whole->data[23], std::byte{1});
  EXPECT_EQ(whole->data[-1], std::byte{0});
  const auto second = weights->view({.name = "b", .rows = 2, .cols = 3, .element_offset = 6, .dtype = DType::kBF16});
  ASSERT_TRUE(second);
  EXPECT_EQ(second->data - whole->data, 12);
  EXPECT_TRUE(weights->view({.name = "c", .rows = 0, .cols = 4, .dtype = DType::kF32}));
}

TEST_F(WeightsTest, ViewsOutsideTheTensorAreRefused) {
  const auto weights = *WeightStore::open(checkpoint_);
  const auto refused = [&](TensorRef ref) {
    const auto view = weights->view(ref);
    return view ? std::string("viewed") : view.error().message();
  };
  EXPECT_EQ(refused({.name = "b", .rows = 2, .cols = 3, .element_offset = 7, .dtype = DType::kBF16}),
            "model.safetensors: tensor \"b\" has 12 elements of BF16, asked for 2 x 3 of BF16 from element 7.");
  EXPECT_THAT(refused({.name = "b", .rows = 4, .cols = 3, .dtype = DType::kF16}), HasSubstr("4 x 3 of F16"));
  EXPECT_THAT(refused({.name = "b", .rows = -1, .cols = 3, .dtype = DType::kBF16}), HasSubstr("-1 x 3"));
  EXPECT_THAT(refused({.name = "b", .rows = 1, .cols = 3, .element_offset = -1, .dtype = DType::kBF16}),
              HasSubstr("element -1"));
  EXPECT_THAT(refused({.name = "b", .rows = INT64_MAX, .cols = 3, .dtype = DType::kBF16}), HasSubstr("asked for"));
  EXPECT_THAT(refused({.name = "d", .rows = 1, .cols = 1}), HasSubstr("tensor \"d\": is not in the checkpoint."));
}

TEST_F(WeightsTest, AShardThatIsCutOrReplacedIsNamed) {
  const auto weights = *WeightStore::open(checkpoint_);
  EXPECT_TRUE(weights->check_unchanged());
  fs::resize_file(folder_.path() / "model.safetensors", 8);
  EXPECT_THAT(weights->check_unchanged().error().message(), HasSubstr("model.safetensors: had"));
  EXPECT_THAT(WeightStore::open(checkpoint_).error().message(), HasSubstr("model.safetensors: declares a header of"));
}

TEST_F(WeightsTest, AShardReplacedAfterPlanningIsRefused) {
  std::swap(tensors_[0].name, tensors_[1].name);  // a sound file of the same size, other tensors at the places
  put_file(folder_.path() / "model.safetensors", safetensors_with(tensors_));
  EXPECT_THAT(WeightStore::open(checkpoint_).error().message(),
              HasSubstr("model.safetensors: has another header than when the model was opened (tensor \"a\")"));
}

TEST_F(WeightsTest, ManyThreadsSeeTheSameNumbers) {
  const auto weights = *WeightStore::open(checkpoint_);
  std::vector<std::thread> readers;
  for (int t = 0; t < 8; ++t)
    readers.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        const auto view =
            weights->view({.name = "b", .rows = 1, .cols = 3, .element_offset = 3, .dtype = DType::kBF16});
        EXPECT_TRUE(view && view->data[5] == std::byte{1});
      }
    });
  for (std::thread& reader : readers) reader.join();
}

TEST_F(WeightsTest, OpeningCanBeCancelled) {
  Task task;
  task.cancel();
  EXPECT_EQ(WeightStore::open(checkpoint_, &task).error().code, ErrorCode::kCancelled);
  EXPECT_EQ(sha256_of_file(folder_.path() / "model.safetensors", &task).error().code, ErrorCode::kCancelled);
}

// FIPS 180-4 examples: the empty message, "abc" and a million times "a".
TEST_F(WeightsTest, Sha256OfFiles) {
  const auto hash = [&](const std::string& content) {
    put_file(folder_.path() / "f", content);
    return sha256_of_file(folder_.path() / "f").value();
  };
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_THAT(sha256_of_file(folder_.path() / "gone").error().message(), HasSubstr("gone: is not in"));
}

TEST(Assets, FollowTheVariableElseTheSourceTree) {
  EXPECT_TRUE(fs::exists(*find_assets() / "models" / "demo" / "config.json"));
  const TemporaryFolder folder;
  const Variable assets("SWITCHYARD_ASSETS", folder.path().string());
  EXPECT_THAT(find_assets().error().message(), HasSubstr("SWITCHYARD_ASSETS must name the assets folder"));
  fs::create_directories(folder.path() / "models" / "demo");
  EXPECT_EQ(*find_assets(), folder.path());
}

}  // namespace
}  // namespace switchyard
