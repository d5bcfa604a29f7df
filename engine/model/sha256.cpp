// SHA-256 of files, by OpenSSL.
#include <openssl/evp.h>

#include <memory>

#include <fmt/format.h>

#include "engine/base/folder.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"

namespace switchyard {

Result<std::string> sha256_of_file(const std::filesystem::path& path, Task* task) {
  const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : ".";
  SY_TRY(const Folder folder, Folder::open(parent));
  SY_TRY(const OpenFile file, folder.open_file(path.filename().string()));
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  bool fine = context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  std::string piece;
  for (uint64_t at = 0; fine && at < file.size(); at += piece.size()) {
    if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "hashing was stopped.", file.name());
    if (task) task->report(static_cast<double>(at) / static_cast<double>(file.size()), "Hashing " + file.name());
    piece.resize(std::min<uint64_t>(1 << 20, file.size() - at));
    SY_CHECK(file.read(at, piece));
    fine = EVP_DigestUpdate(context.get(), piece.data(), piece.size()) == 1;
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  fine = fine && EVP_DigestFinal_ex(context.get(), digest, &length) == 1;
  if (!fine) return fail(ErrorCode::kInternal, "SHA-256 could not be computed.", file.name());
  std::string hex;
  for (unsigned int i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

}  // namespace switchyard
