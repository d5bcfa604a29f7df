// Every quantised format decodes to exactly the values of its own package; parts that do not fit are refused by name.
// Data: tests/data/quantised, made by make_quantised_blocks.py.
#include "engine/model/quantised.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/base/json.h"
#include "engine/model/checkpoint.h"
#include "engine/model/safetensors.h"
#include "engine/model/stored_forms.h"
#include "tests/support/temporary_folder.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kFolder = fs::path(SWITCHYARD_SOURCE_DIR) / "tests/data/quantised";

// A file of tensors opened as a checkpoint without a plan.
struct Stored {
  Checkpoint checkpoint;
  std::shared_ptr<const WeightStore> weights;

  explicit Stored(const std::string& file) {
    const auto folder = Folder::open(kFolder);
    checkpoint.folder = kFolder;
    checkpoint.shards = {file};
    checkpoint.tensors = *read_safetensors(*folder->open_file(file));
    std::sort(checkpoint.tensors.begin(), checkpoint.tensors.end(),
              [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
    weights = *WeightStore::open(checkpoint);
  }

  std::vector<float> read(const TensorRef& ref) const {
    std::vector<float> out(size_t(ref.elements()));
    const auto done = weights->read(ref, out.data());
    EXPECT_TRUE(done) << done.error().message();
    return out;
  }
  TensorRef plain(const std::string& name) const {
    const TensorInfo& tensor = *checkpoint.find(name);
    int64_t elements = 1;
    for (const int64_t dim : tensor.shape) elements *= dim;
    return {.name = name, .rows = 1, .cols = elements, .dtype = tensor.dtype};
  }
};

// Equal bits; any NaN equals any other.
void expect_same(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  size_t different = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &want[i], sizeof(float)) == 0 || (std::isnan(got[i]) && std::isnan(want[i]))) continue;
    if (got[i] == 0 && want[i] == 0) continue;  // -0: (q - zero) * scale, or scale * (q - zero) of integers
    if (++different <= 3) ADD_FAILURE() << "element " << i << " is " << got[i] << ", the package gives " << want[i];
  }
  EXPECT_EQ(different, 0u);
}

TEST(GgmlBlocks, EveryTypeDecodesAsTheGgufPackageDoes) {
  const Stored stored("ggml.safetensors");
  size_t types = 0;
  for (const TensorInfo& tensor : stored.checkpoint.tensors) {
    const std::string type = tensor.name.substr(0, tensor.name.find('.'));
    if (!tensor.name.ends_with(".blocks")) continue;
    SCOPED_TRACE(type);
    std::optional<GgmlBlock> block;
    for (uint32_t number = 0; number < 64; ++number)
      if (const auto candidate = ggml_block(number); candidate && candidate->name == type) block = candidate;
    ASSERT_TRUE(block);
    const auto want = stored.read(stored.plain(type + ".expected"));
    TensorRef ref{.name = tensor.name, .rows = 1, .cols = int64_t(want.size()), .dtype = tensor.dtype};
    ref.quantised = std::make_shared<QuantLayout>(QuantLayout{.kind = QuantKind::kGgml, .ggml = block->type});
    expect_same(stored.read(ref), want);
    ++types;
  }
  EXPECT_EQ(types, 15u);
}

struct Case {
  const char* file;
  std::string config;  // quantization_config
  std::string name;
  std::vector<int64_t> shape;
  const char* label;
};

std::string gptq(const std::string& more) {
  return R"({"quant_method": "gptq", "bits": 4, "group_size": 16)" + more + "}";
}
std::string packed(const std::string& weights) {
  return R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"weights": )" +
         weights + "}}}";
}

const std::vector<Case>& cases() {
  static const std::string fp8 = R"({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16]})";
  static const std::string whole = R"({"quant_method": "fp8"})";
  static const std::vector<Case> all{
      {"fp8", fp8, "X.weight", {40, 52}, "FP8 e4m3, 16 x 16 blocks"},
      {"fp8_e8m0", fp8, "X.weight", {40, 52}, "FP8 e4m3, 16 x 16 blocks"},
      {"fp8_row", whole, "X.weight", {40, 52}, "FP8 e4m3, scaled by row"},
      {"fp8_one", whole, "X.weight", {40, 52}, "FP8 e4m3, one scale"},
      {"fp8_packed", fp8, "X.gate_up_proj", {3, 40, 52}, "FP8 e4m3, 16 x 16 blocks"},
      {"mxfp4", R"({"quant_method": "mxfp4"})", "X.down_proj", {3, 10, 64}, "MXFP4"},
      {"gptq", gptq(""), "X.weight", {72, 96}, "GPTQ int4, groups of 16"},
      {"gptq_act", gptq(R"(, "desc_act": true)"), "X.weight", {72, 96}, "GPTQ int4, groups of 16"},
      {"gptq_v2", gptq(R"(, "checkpoint_format": "gptq_v2")"), "X.weight", {72, 96}, "GPTQ int4, groups of 16"},
      {"awq",
       R"({"quant_method": "awq", "bits": 4, "group_size": 16, "version": "GEMM"})",
       "X.weight",
       {72, 96},
       "AWQ int4, groups of 16"},
      {"packed", packed(R"({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 16})"), "X.weight", {44, 96}, "packed int4, groups of 16"},
      {"packed_zero", packed(R"({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 16, "symmetric": false})"), "X.weight", {44, 96}, "packed int4, groups of 16"},
      {"packed_row", packed(R"({"num_bits": 4, "type": "int", "strategy": "channel"})"), "X.weight", {44, 96}, "packed int4, scaled by row"},
  };
  return all;
}

Result<Quantisation> quantisation_of(const std::string& config) {
  const Json json = *parse_json(R"({"quantization_config": )" + config + "}", "config.json");
  return read_quantisation(JsonView(json, "config.json"));
}

Result<std::optional<TensorRef>> find(const Case& c, const Stored& stored) {
  const auto quantisation = quantisation_of(c.config);
  if (!quantisation) return tl::unexpected<Error>(quantisation.error());
  return find_stored(*quantisation, stored.checkpoint.tensors, stored.checkpoint.shards, c.name, c.shape);
}

class Forms : public testing::TestWithParam<Case> {};

TEST_P(Forms, DecodesAsItsPackageDoes) {
  const Case& c = GetParam();
  const Stored stored(std::string(c.file) + ".safetensors");
  const auto found = find(c, stored);
  ASSERT_TRUE(found) << found.error().message();
  ASSERT_TRUE(*found);
  TensorRef ref = **found;
  EXPECT_EQ(storage_text(ref), c.label);
  EXPECT_FALSE(ref.in_place());
  ref.cols = c.shape.back();
  ref.rows = c.shape.size() == 3 ? c.shape[0] * c.shape[1] : c.shape[0];
  const auto want = stored.read(stored.plain("expected"));
  expect_same(stored.read(ref), want);

  // Rows 8 to 29 alone, and every second row: experts and fused projections are parts of a tensor.
  TensorRef part = ref;
  part.rows = 22;
  part.element_offset = 8 * ref.cols;
  expect_same(stored.read(part), {want.begin() + 8 * ref.cols, want.begin() + 30 * ref.cols});
  TensorRef strided = ref;
  strided.rows = 10;
  strided.element_offset = ref.cols;
  strided.row_stride = 2 * ref.cols;
  std::vector<float> odd;
  for (int r = 0; r < 10; ++r)
    odd.insert(odd.end(), want.begin() + (2 * r + 1) * ref.cols, want.begin() + (2 * r + 2) * ref.cols);
  expect_same(stored.read(strided), odd);
  // What bf16 holds exactly may be kept so.
  if (exact_dtype(ref) == DType::kBF16) {
    for (const float value : want) EXPECT_EQ(float_of_bf16(exact_bf16(value)), value);
  }
}

TEST_P(Forms, EachMissingOrMisshapenPartIsRefusedByName) {
  const Case& c = GetParam();
  const Stored stored(std::string(c.file) + ".safetensors");
  int tried = 0;
  for (size_t i = 0; i < stored.checkpoint.tensors.size(); ++i) {
    const std::string name = stored.checkpoint.tensors[i].name;
    if (name == "expected" || name.ends_with("weight_shape")) continue;
    Stored changed = stored;
    changed.checkpoint.tensors[i].shape.push_back(2);
    const auto misshapen = find(c, changed);
    ++tried;
    if (name == "X.weight" || !name.ends_with("weight")) {
      ASSERT_FALSE(misshapen) << name;
      EXPECT_THAT(misshapen.error().message(), HasSubstr(name));
      EXPECT_THAT(misshapen.error().message(), HasSubstr("has shape"));
    }
    changed.checkpoint.tensors[i].shape.pop_back();
    changed.checkpoint.tensors[i].dtype = DType::kF64;
    const auto mistyped = find(c, changed);
    if (!mistyped) {
      EXPECT_THAT(mistyped.error().message(), HasSubstr("is stored as F64"));
    } else {
      EXPECT_FALSE((**mistyped).quantised) << "a plain tensor of that name, which PlanBuilder refuses by dtype";
    }
  }
  EXPECT_GE(tried, 2);
}

INSTANTIATE_TEST_SUITE_P(All, Forms, testing::ValuesIn(cases()), [](const auto& info) { return info.param.file; });

TEST(Forms, AGroupIndexOutsideTheGroupsIsRefusedWhenRead) {
  const TemporaryFolder folder;
  std::string file = file_content(kFolder / "gptq.safetensors");
  Stored stored("gptq.safetensors");
  const TensorInfo& order = *stored.checkpoint.find("X.g_idx");
  const int32_t bad = 6;  // groups 0 to 5
  std::memcpy(file.data() + order.begin + 4 * 17, &bad, sizeof bad);
  put_file(folder.path() / "gptq.safetensors", file);
  stored.checkpoint.folder = folder.path();
  const auto weights = WeightStore::open(stored.checkpoint);
  ASSERT_TRUE(weights) << weights.error().message();
  TensorRef ref = **find(cases()[6], stored);
  ref.rows = 72;
  ref.cols = 96;
  std::vector<float> out(72 * 96);
  const auto done = (*weights)->read(ref, out.data());
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message(), HasSubstr("the group index of column 17 is 6, the tensor has 6 groups"));
}

TEST(Quantisation, RefusesWhatItDoesNotDecodeWithTheListOfWhatItDoes) {
  const std::vector<std::pair<std::string, std::string>> refused{
      {R"({"quant_method": "bitsandbytes"})", "bitsandbytes"},
      {R"({})", "unnamed"},
      {R"({"quant_method": "gptq", "bits": 3})", "bits = 3"},
      {R"({"quant_method": "gptq", "bits": 8})", "bits = 8"},
      {R"({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"})", "marlin"},
      {R"({"quant_method": "awq", "bits": 4, "version": "gemv"})", "gemv"},
      {R"({"quant_method": "fp8", "fmt": "e5m2"})", "e5m2"},
      {R"({"quant_method": "compressed-tensors", "format": "marlin-24", "config_groups": {"a": {"weights": {}}}})", "marlin-24"},
      {packed(R"({"num_bits": 8, "type": "int", "strategy": "group", "group_size": 16})"), "num_bits = 8"},
      {packed(R"({"num_bits": 4, "type": "int", "strategy": "tensor"})"), "tensor"},
  };
  for (const auto& [config, part] : refused) {
    const auto result = quantisation_of(config);
    ASSERT_FALSE(result) << config;
    EXPECT_THAT(result.error().message(), HasSubstr(part));
    EXPECT_THAT(result.error().message(), HasSubstr("Supported: fp8 (e4m3"));
  }
  EXPECT_FALSE(quantisation_of(R"({"quant_method": "fp8", "weight_block_size": [128]})"));
  EXPECT_FALSE(quantisation_of(R"({"quant_method": "fp8", "weight_block_size": [0, 128]})"));
  EXPECT_FALSE(quantisation_of(R"({"quant_method": "gptq", "bits": 4, "group_size": 0})"));
  EXPECT_TRUE(quantisation_of(R"({"quant_method": "gptq", "bits": 4, "group_size": -1})"));
}

TEST(Halves, ExactF16IsTheInverseOfReading) {
  for (uint32_t stored = 0; stored < 65536; ++stored)
    ASSERT_EQ(exact_f16(float_of_f16(static_cast<uint16_t>(stored))), stored);
}

}  // namespace
}  // namespace switchyard
