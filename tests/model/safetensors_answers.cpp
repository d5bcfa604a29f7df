// For differential_safetensors.py: reads safetensors files from standard input, each after its length as a 32-bit
// little-endian number, and answers with a line of JSON each: the tensors [name, dtype, shape, bytes], or the refusal.
#include <cstdint>
#include <cstdio>
#include <string>

#include "engine/base/json.h"
#include "engine/model/safetensors.h"

using namespace switchyard;

namespace {

Result<std::vector<TensorInfo>> parse(const std::string& file) {
  SY_TRY(const uint64_t length, safetensors_header_bytes(file, file.size(), "file"));
  return parse_safetensors_header(std::string_view(file).substr(8, length), file.size(), "file");
}

}  // namespace

int main() {
  uint32_t length = 0;
  while (std::fread(&length, sizeof length, 1, stdin) == 1) {
    std::string file(length, '\0');
    if (std::fread(file.data(), 1, length, stdin) != length) return 1;
    Json answer;
    if (const auto tensors = parse(file)) {
      answer = Json::array();
      for (const TensorInfo& t : *tensors) answer.push_back({t.name, name(t.dtype), t.shape, t.end - t.begin});
    } else {
      answer = tensors.error().message();
    }
    std::printf("%s\n", answer.dump().c_str());
  }
}
