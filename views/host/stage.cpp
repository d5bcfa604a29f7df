#include "views/host/stage.h"

#include <algorithm>
#include <exception>

#include <fmt/format.h>
#include <imgui.h>
#include <imgui_internal.h>
#include <implot.h>

#include "views/ui/draw.h"

namespace switchyard {

ViewStage::ViewStage(View& view) : view_(view), imgui_(ImGui::CreateContext()) {
  ImGui::SetCurrentContext(imgui_);
  implot_ = ImPlot::CreateContext();
  activate();
  ImGuiIO& io = ImGui::GetIO();
  io.IniFilename = nullptr;
  io.LogFilename = nullptr;
  io.UserData = &canvas_;
  io.ConfigInputTrickleEventQueue = true;
  // A view that throws half way leaves windows and stacks open: they are closed silently.
  io.ConfigErrorRecoveryEnableAssert = false;
  io.ConfigErrorRecoveryEnableDebugLog = true;  // ImGui wants one of the three
  io.ConfigErrorRecoveryEnableTooltip = false;
  load_fonts(canvas_);
}

ViewStage::~ViewStage() {
  activate();
  canvas_.textures.release();
  ImPlot::DestroyContext(implot_);
  ImGui::DestroyContext(imgui_);
}

void ViewStage::activate() const {
  ImGui::SetCurrentContext(imgui_);
  ImPlot::SetCurrentContext(implot_);
}

void ViewStage::build(const ViewSource& source, float width, float height, float ratio, double seconds) {
  activate();
  ImGuiIO& io = ImGui::GetIO();
  io.DisplaySize = {std::max(width, 1.0f), std::max(height, 1.0f)};
  io.DisplayFramebufferScale = {ratio, ratio};
  io.DeltaTime = float(std::clamp(seconds - last_seconds_, 1e-4, 0.25));
  last_seconds_ = seconds;
  if (const std::string key = fmt::format("{} {}", source.theme->name, source.scale); key != styled_for_) {
    apply_style(*source.theme, source.scale);
    ImGui::GetStyle().AntiAliasedLines = ImGui::GetStyle().AntiAliasedFill = anti_aliasing_;
    styled_for_ = key;
  }

  ImGui::NewFrame();
  ImGui::SetNextWindowPos({0, 0});
  ImGui::SetNextWindowSize(io.DisplaySize);
  ImGui::PushStyleVar(ImGuiStyleVar_WindowRounding, 0.0f);
  ImGui::PushStyleVar(ImGuiStyleVar_WindowPadding, ImVec2(0, 0));
  ImGui::Begin("view", nullptr,
               ImGuiWindowFlags_NoDecoration | ImGuiWindowFlags_NoMove | ImGuiWindowFlags_NoSavedSettings |
                   ImGuiWindowFlags_NoScrollWithMouse | ImGuiWindowFlags_NoBringToFrontOnFocus |
                   ImGuiWindowFlags_NoNav);
  ImGui::PopStyleVar(2);
  const RunData& data = *source.data;
  items_.begin(
      [&data, plan = data.plan, tokens = data.tokens()] { return data.plan == plan && data.tokens() >= tokens; });
  if (failure_.empty())
    draw_view({*source.data, *source.selection, *source.cursor, *source.theme, items_, *source.commands, seconds});
  else
    draw_failure(*source.theme);
  canvas_.presses.clear();
  ImGui::End();
  ImGui::Render();
}

void ViewStage::draw_view(const ViewContext& context) {
  ImGuiErrorRecoveryState state;
  ImGui::ErrorRecoveryStoreState(&state);
  try {
    view_.draw(context);
    return;
  } catch (const std::exception& error) {
    failure_ = error.what();
  } catch (...) {
    failure_ = "unknown exception";
  }
  if (failure_.empty()) failure_ = "exception without a message";
  ImGui::ErrorRecoveryTryToRecoverState(&state);
  ImPlot::DestroyContext(implot_);  // it may stand inside a plot
  implot_ = ImPlot::CreateContext();
  ImPlot::SetCurrentContext(implot_);
  items_.begin();
  draw_failure(context.theme);
}

void ViewStage::draw_failure(const Theme& theme) {
  const ItemRect area = view_area();
  fill(area, ink(theme.dock));  // over what the view drew before it stopped
  const float x = area.x0 + em(1.2f), width = area.width() - em(2.4f);
  float y = area.y0 + em(1.6f);
  draw_text({x, y}, Face::kBold, ink(theme.error), fitted(Face::kBold, "This view stopped: it met an error", width));
  y += em(1.6f);
  ImGui::SetCursorScreenPos({x, y});
  ImGui::PushTextWrapPos(x - area.x0 + width);
  ImGui::TextUnformatted(failure_.c_str());
  ImGui::PopTextWrapPos();
  ImGui::SetCursorScreenPos({x, ImGui::GetCursorScreenPos().y + em(0.4f)});
  const bool retry = ImGui::Button("Draw it again");
  const ImVec2 a = ImGui::GetItemRectMin(), b = ImGui::GetItemRectMax();
  items_.add({.id = "failure", .label = "This view stopped", .value = 0, .unit = "", .rect = area, .detail = failure_});
  items_.add({.id = "failure/retry",
              .label = "Draw it again",
              .value = 0,
              .unit = "",
              .rect = {a.x, a.y, b.x, b.y},
              .detail = {}});
  if (retry) failure_.clear();
}

}  // namespace switchyard
