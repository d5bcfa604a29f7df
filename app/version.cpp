// See version.h.
#include "app/version.h"

#include <fmt/format.h>

#include "engine/backend/available.h"
#include "engine/base/build_info.h"
#include "engine/trace/export/parquet.h"
#include "engine/trace/schema.h"
#if __has_include("switchyard/plugin.h")
#include "switchyard/plugin.h"
#endif

namespace switchyard {

std::string version_text() {
  const BuildInfo& build = build_info();
  std::string out = fmt::format("switchyard {}\n", build.version);
  const auto line = [&](std::string_view name, std::string_view what) { out += fmt::format("  {:<11}{}\n", name, what); };
  line("commit", build.commit);
  line("build", fmt::format("{}, {}", build.type, build.compiler));
  for (const BackendState& backend : backend_states())
    line(backend.name, fmt::format("backend, {}: {}", backend.present ? "present" : "absent", backend.detail));
  const auto parquet = find_parquet_module();
  line("parquet", parquet ? "trace export, present: Arrow, loaded when first used" : "trace export, absent: " + parquet.error().message());
  line("formats", fmt::format("trace schema {}, edit scripts 1, JSON documents 1", schema::kVersion));
#ifdef SY_CORE_CONTRACT
  line("plugins", fmt::format("contract {} for schemes, metrics and files, {} for views", SY_CORE_CONTRACT, SY_VIEW_CONTRACT));
#endif
  out.pop_back();  // the last newline is whoever shows it
  return out;
}

}  // namespace switchyard
