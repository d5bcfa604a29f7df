// The safetensors reader on arbitrary sound files, and what any change of an offset or a shape does to them.
// The hostile files are in hostile_test.cpp.
#include "engine/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "engine/base/json.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

Result<std::vector<TensorInfo>> parse(const std::string& file) {
  SY_TRY(const uint64_t length, safetensors_header_bytes(file, file.size(), "x.safetensors"));
  return parse_safetensors_header(std::string_view(file).substr(8, length), file.size(), "x.safetensors");
}

std::vector<TensorInfo> arbitrary_tensors() {
  std::vector<TensorInfo> tensors;
  const int count = *rc::gen::inRange(1, 20);
  for (int n = 0; n < count; ++n) {
    TensorInfo tensor{.name = "t" + std::to_string(n * 7 % 20)};
    tensor.dtype = *rc::gen::element(DType::kU8, DType::kBF16, DType::kF32, DType::kF64, DType::kBool, DType::kF8E4M3);
    for (int rank = *rc::gen::inRange(0, 4); rank > 0; --rank) tensor.shape.push_back(*rc::gen::inRange(0, 5));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

TEST(Safetensors, ReadsBackWhatWasWritten) {
  EXPECT_TRUE(rc::check("name, dtype, shape and place", [] {
    auto tensors = arbitrary_tensors();
    const auto read = parse(safetensors_with(tensors));
    RC_ASSERT(read.has_value());
    RC_ASSERT(read->size() == tensors.size());
    for (const TensorInfo& wanted : tensors) {
      const auto found =
          std::find_if(read->begin(), read->end(), [&](const TensorInfo& t) { return t.name == wanted.name; });
      RC_ASSERT(found != read->end());
      RC_ASSERT(found->dtype == wanted.dtype);
      RC_ASSERT(found->shape == wanted.shape);
      RC_ASSERT(found->begin == wanted.begin && found->end == wanted.end);
    }
  }));
}

TEST(Safetensors, RefusesAnyCutAndAnyByteTooMany) {
  EXPECT_TRUE(rc::check("a file of another length", [] {
    auto tensors = arbitrary_tensors();
    const std::string file = safetensors_with(tensors);
    const auto kept = *rc::gen::inRange<size_t>(0, file.size());
    RC_ASSERT(!parse(file.substr(0, kept)));
    RC_ASSERT(!parse(file + "x"));
  }));
}

TEST(Safetensors, RefusesAnyChangedOffsetOrDimension) {
  EXPECT_TRUE(rc::check("one number more or less", [] {
    auto tensors = arbitrary_tensors();
    const std::string file = safetensors_with(tensors);
    const size_t length = *safetensors_header_bytes(file, file.size(), "x");
    Json header = Json::parse(file.substr(8, length));
    Json& entry = header[tensors[*rc::gen::inRange<size_t>(0, tensors.size())].name];
    Json& numbers = *rc::gen::arbitrary<bool>() || entry["shape"].empty() ? entry["data_offsets"] : entry["shape"];
    Json& number = numbers[*rc::gen::inRange<size_t>(0, numbers.size())];
    int64_t elements = 1;
    for (const Json& dim : entry["shape"]) elements *= dim.get<int64_t>();
    // Another dimension beside a 0 changes no size, and an empty tensor may stand anywhere: both stay legal.
    if (elements == 0) RC_DISCARD("empty");
    number = number.get<int64_t>() + *rc::gen::element(-1, 1, 1 << 20);
    RC_ASSERT(!parse(safetensors_of(header.dump(), file.substr(8 + length))));
  }));
}

TEST(Safetensors, ArbitraryBytesGetACleanAnswer) {
  EXPECT_TRUE(rc::check("no header",
                        [](const std::string& text) { static_cast<void>(parse(safetensors_of("{" + text, ""))); }));
}

}  // namespace
}  // namespace switchyard
