// The Hugging Face cache, strictly read-only. Called while a checkpoint opens; any thread.
// Layout: formats.md, section 2.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace switchyard {

// "org/name": two parts of letters, digits, '.', '_', '-'.
bool is_repository_name(std::string_view text);

// HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
std::filesystem::path hf_cache_root();

struct CachedModel {
  std::filesystem::path folder;  // of the snapshot
  std::string revision;          // what refs/main holds
};
// Unfinished downloads are refused with the reason.
Result<CachedModel> find_in_hf_cache(std::string_view repository);

// "org/name" where the folder is an entry of a cache (models--org--name), else empty.
std::string repository_of_cache_entry(const std::filesystem::path& folder);
Result<CachedModel> open_cache_entry(const std::filesystem::path& folder, const std::string& repository);

}  // namespace switchyard
