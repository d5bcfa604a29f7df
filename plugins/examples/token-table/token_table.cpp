// A row a token of the sequence: index, text, experts by falling weight, margin of the last chosen one, entropy. A
// click shows the token everywhere; the margin is drawn as a bar, the shown token on a ground of its own.
#include <algorithm>
#include <cstdio>
#include <string>

#include <switchyard/plugin.hpp>

namespace {

std::string experts_of(const sy_view_token& token) {
  std::string text;
  for (uint32_t slot = 0; slot < token.used && slot < token.slots; ++slot) {
    char one[48];
    std::snprintf(one, sizeof one, token.weight ? "%s%d %.2f" : "%s%d", slot ? "  " : "", token.id[slot],
                  token.weight ? double(token.weight[slot]) : 0.0);
    text += one;
  }
  return text;
}

}  // namespace

struct TokenTable : sy::View {
  void draw(const sy::Canvas& canvas) override {
    const sy_view_in& in = canvas.in;
    const float line = canvas.line() * 1.35f, em = canvas.line();
    const float columns[] = {0.5f * em, 3 * em, 9 * em, 14 * em};
    if (in.tokens == 0)
      return canvas.text(columns[0], line, SY_COLOR_MUTED,
                         in.rows ? "No token yet: run the prompt." : "Open a model or a trace.");
    const char* heads[] = {"#", "token", "margin", "experts and weights"};
    for (int i = 0; i < 4; ++i) canvas.text(columns[i], 0.3f * em, SY_COLOR_MUTED, heads[i]);
    const float visible = std::max(1.0f, (in.height - line) / line - 1);
    const float first = canvas.d.scroll(&canvas.d, float(in.tokens), visible);
    canvas.d.clip(&canvas.d, 0, line, in.width, in.height);
    for (uint64_t index = uint64_t(first); index < in.tokens && float(index) < first + visible + 1; ++index) {
      sy_view_token token;
      if (!canvas.token(index, in.row, token)) continue;
      const float y = line * (1 + float(index) - first);
      if (index == in.shown) canvas.rect(0, y, in.width, y + line, SY_COLOR_GRID);
      canvas.text(columns[0], y, SY_COLOR_MUTED, std::to_string(index));
      canvas.text(columns[1], y, token.phase ? SY_COLOR_TEXT : SY_COLOR_MUTED, token.text);
      canvas.text(columns[3], y, SY_COLOR_TEXT, experts_of(token));
      const float wide = 4 * em * std::clamp(token.margin / 2, 0.0f, 1.0f);
      canvas.rect(columns[2], y + 0.3f * em, columns[2] + std::max(1.0f, wide), y + em, SY_COLOR_ACCENT);
      if (canvas.item("token " + std::to_string(index), "token " + std::to_string(index) + " " + token.text,
                      double(token.margin), "margin", 0, y, in.width, y + line))
        canvas.d.show_token(&canvas.d, index);
    }
    canvas.d.unclip(&canvas.d);
  }

  void table(const sy::Rows& rows) override {
    for (const char* name : {"token", "text", "experts"}) rows.column(name);
    rows.column("margin", "logit");
    rows.column("entropy", "nat");
    for (uint64_t index = 0; index < std::min<uint64_t>(rows.in.tokens, 100'000); ++index) {
      sy_view_token token;
      if (!rows.token(index, rows.in.row, token)) continue;
      rows.number(double(index));
      rows.text(token.text);
      rows.text(experts_of(token));
      rows.number(double(token.margin));
      rows.number(double(token.entropy));
      rows.end();
    }
  }
};

SWITCHYARD_PLUGIN(plugin) {
  plugin.view<TokenTable>("token-table.tokens");
}
