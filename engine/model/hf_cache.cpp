// The Hugging Face cache.
#include "engine/model/hf_cache.h"

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "engine/base/folder.h"
#include "engine/base/text.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::string shown(const fs::path& path) { return printable(path.string(), 400); }

const char* set_variable(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

bool is_word(std::string_view text) {
  return !text.empty() && text != "." && text != ".." && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

}  // namespace

bool is_repository_name(std::string_view text) {
  const size_t slash = text.find('/');
  return slash != std::string_view::npos && is_word(text.substr(0, slash)) && is_word(text.substr(slash + 1));
}

fs::path hf_cache_root() {
  if (const char* cache = set_variable("HF_HUB_CACHE")) return cache;
  if (const char* home = set_variable("HF_HOME")) return fs::path(home) / "hub";
  if (const char* cache = set_variable("XDG_CACHE_HOME")) return fs::path(cache) / "huggingface" / "hub";
  const char* home = set_variable("HOME");
  return fs::path(home ? home : "/") / ".cache" / "huggingface" / "hub";
}

Result<CachedModel> find_in_hf_cache(std::string_view repository) {
  std::string entry(repository);
  entry.replace(entry.find('/'), 1, "--");
  const fs::path model = hf_cache_root() / ("models--" + entry);
  const std::string where(repository);
  std::error_code error;
  if (!fs::is_directory(model, error))
    return fail(ErrorCode::kNotFound, fmt::format("is neither a folder nor in the Hugging Face cache ({}).", shown(model)), where,
                fmt::format("Download it first: hf download {}", where));

  SY_TRY(const Folder blobs, Folder::open(fs::exists(model / "blobs", error) ? model / "blobs" : model));
  for (const std::string& name : blobs.names())
    if (name.ends_with(".incomplete"))
      return fail(ErrorCode::kNotFound, fmt::format("is in the Hugging Face cache, but a download is unfinished ({}).", printable(name)), where,
                  "Finish the download, or give the snapshot's folder itself.");

  SY_TRY(const Folder refs, Folder::open(model / "refs"));
  SY_TRY(std::string revision, refs.read_text("main", 256));
  while (!revision.empty() && (revision.back() == '\n' || revision.back() == ' ')) revision.pop_back();
  if (!is_word(revision))
    return fail(ErrorCode::kMalformed, fmt::format("refs/main holds {}, which is no revision.", quote(revision)), where);
  const fs::path snapshot = model / "snapshots" / revision;
  if (!fs::is_directory(snapshot, error))
    return fail(ErrorCode::kNotFound, fmt::format("is in the Hugging Face cache, but revision {} is not.", revision), where,
                fmt::format("Download it again: hf download {}", where));
  return CachedModel{snapshot, revision};
}

}  // namespace switchyard
