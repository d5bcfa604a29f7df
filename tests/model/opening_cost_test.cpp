// What opening a large checkpoint reads: headers, and no weight. A sparse file of 14 GB stands for the checkpoint.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/model/checkpoint.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kLayers = 5, kHidden = 4096, kWidth = 14336, kExperts = 8, kVocab = 32000, kKeys = 1024;

// A mixtral of this shape in bf16; returns the bytes of its header.
uint64_t write_sparse_mixtral(const fs::path& folder) {
  put_file(folder / "config.json",
           nlohmann::json({{"model_type", "mixtral"}, {"vocab_size", kVocab}, {"hidden_size", kHidden},
                           {"intermediate_size", kWidth}, {"num_hidden_layers", kLayers}, {"num_attention_heads", 32},
                           {"num_key_value_heads", 8}, {"num_local_experts", kExperts}, {"num_experts_per_tok", 2},
                           {"max_position_embeddings", 4096}, {"rope_theta", 1e6}, {"tie_word_embeddings", false}})
               .dump());
  nlohmann::json header = nlohmann::json::object();
  int64_t at = 0;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    int64_t bytes = 2;
    for (const int64_t dim : shape) bytes *= dim;
    header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {at, at + bytes}}};
    at += bytes;
  };
  add("model.embed_tokens.weight", {kVocab, kHidden});
  add("lm_head.weight", {kVocab, kHidden});
  add("model.norm.weight", {kHidden});
  for (int64_t n = 0; n < kLayers; ++n) {
    const std::string layer = "model.layers." + std::to_string(n) + ".";
    add(layer + "input_layernorm.weight", {kHidden});
    add(layer + "post_attention_layernorm.weight", {kHidden});
    for (const char* name : {"q_proj", "o_proj"}) add(layer + "self_attn." + name + ".weight", {kHidden, kHidden});
    for (const char* name : {"k_proj", "v_proj"}) add(layer + "self_attn." + name + ".weight", {kKeys, kHidden});
    add(layer + "block_sparse_moe.gate.weight", {kExperts, kHidden});
    for (int64_t e = 0; e < kExperts; ++e) {
      const std::string expert = layer + "block_sparse_moe.experts." + std::to_string(e) + ".";
      add(expert + "w1.weight", {kWidth, kHidden});
      add(expert + "w2.weight", {kHidden, kWidth});
      add(expert + "w3.weight", {kWidth, kHidden});
    }
  }
  put_file(folder / "model.safetensors", safetensors_of(header.dump(), ""));
  const uint64_t start = fs::file_size(folder / "model.safetensors");
  fs::resize_file(folder / "model.safetensors", start + uint64_t(at));
  return start;
}

// Bytes that this process got from read() and its kind.
uint64_t bytes_read() {
  std::ifstream io("/proc/self/io");
  std::string key;
  uint64_t value = 0;
  io >> key >> value;  // rchar
  return value;
}

// Bytes of the file that are in memory, whoever brought them there.
uint64_t resident(const fs::path& file) {
  const int descriptor = open(file.c_str(), O_RDONLY);
  const auto bytes = fs::file_size(file);
  void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor, 0);
  EXPECT_NE(mapped, MAP_FAILED);
  std::vector<unsigned char> pages((bytes + 4095) / 4096);
  EXPECT_EQ(mincore(mapped, bytes, pages.data()), 0);
  munmap(mapped, bytes);
  close(descriptor);
  uint64_t count = 0;
  for (const unsigned char page : pages) count += page & 1;
  return count * 4096;
}

TEST(OpeningCost, NoWeightIsReadBeforeItIsNeeded) {
  const TemporaryFolder folder;
  const uint64_t header = write_sparse_mixtral(folder.path());
  const fs::path file = folder.path() / "model.safetensors";
  ASSERT_GT(fs::file_size(file), 13'000'000'000u);
  const uint64_t read_before = bytes_read();
  const auto start = std::chrono::steady_clock::now();
  const auto checkpoint = open_checkpoint(folder.path().string());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  const auto weights = WeightStore::open(*checkpoint);  // reads the header again and maps the file
  ASSERT_TRUE(weights) << weights.error().message();
  const uint64_t read = bytes_read() - read_before, in_memory = resident(file);
  EXPECT_LE(read, 2 * header + (64 << 10)) << "two readings of the header, config.json, and what the test itself reads";
  EXPECT_LE(in_memory, header + (1 << 20)) << "the header and the kernel's read-ahead";

  // The measure measures: touching one matrix brings it, and only it.
  const TensorRef& matrix = checkpoint->plan.layers[2].get<MoeSpec>().experts[3].gate;
  const auto view = (*weights)->view(matrix);
  ASSERT_TRUE(view);
  const uint64_t bytes = uint64_t(matrix.elements()) * 2;
  unsigned sum = 0;
  for (uint64_t at = 0; at < bytes; at += 4096) sum += unsigned(view->data[at]);
  EXPECT_EQ(sum, 0u);
  const uint64_t after = resident(file);
  EXPECT_GE(after, in_memory + bytes / 2);
  EXPECT_LE(after, in_memory + bytes + (16 << 20));
  std::cout << "opened " << fs::file_size(file) / 1000000 << " MB in " << took.count() * 1e3 << " ms, read " << read
            << " bytes, " << in_memory << " bytes of the file in memory\n";
}

}  // namespace
}  // namespace switchyard
