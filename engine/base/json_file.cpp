// Reading a file of numbers, see json_file.h.
#include "engine/base/json_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace switchyard {

Result<Json> read_json_file(const std::string& file) {
  constexpr JsonLimits kLimits{size_t{256} << 20, 16, 20'000'000};
  std::error_code problem;
  const auto size = std::filesystem::file_size(file, problem);
  std::ifstream in(file, std::ios::binary);
  if (problem || !in)
    return fail(ErrorCode::kNotFound,
                "cannot be read: " + (problem ? problem.message() : std::string(std::strerror(errno))) + ".", file);
  if (size > kLimits.bytes)
    return fail(ErrorCode::kMalformed, "is longer than 256 MiB, the limit for a file of numbers.", file);
  std::string text(size, '\0');
  in.read(text.data(), std::streamsize(size));
  text.resize(size_t(in.gcount()));
  SY_TRY(Json json, parse_json(text, file, kLimits));
  SY_CHECK(JsonView(json, file).integer_or("schema", 1, 1, 1));
  return json;
}

}  // namespace switchyard
