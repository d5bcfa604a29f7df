// A live view: draws through the program's table, names what it drew, and gives the same numbers as a table.
#include <string>

#include <switchyard/plugin.hpp>

struct View : sy::View {
  void draw(const sy::Canvas& canvas) override {
    sy_view_token token;
    if (canvas.in.tokens == 0 || !canvas.token(canvas.in.shown, canvas.in.row, token) || !token.weight) {
      canvas.text(8, 8, SY_COLOR_MUTED, "Generate some tokens with weights captured.");
      return;
    }
    const float line = canvas.line(), wide = canvas.in.width - 14 * line;
    for (uint32_t slot = 0; slot < token.used; ++slot) {
      const float y = line * (0.5f + float(slot) * 1.3f), x1 = 10 * line + std::max(0.0f, wide * token.weight[slot]);
      const std::string label = "expert " + std::to_string(token.id[slot]);
      canvas.text(8, y, SY_COLOR_TEXT, label);
      canvas.rect(10 * line, y, x1, y + line, SY_COLOR_FIRST_CATEGORY + token.id[slot]);
      if (canvas.item("slot " + std::to_string(slot), label, double(token.weight[slot]), "weight", 8, y, x1, y + line))
        canvas.d.select(&canvas.d, canvas.in.row, token.id[slot]);
    }
  }
  void table(const sy::Rows& rows) override {
    rows.column("expert");
    rows.column("weight");
    sy_view_token token;
    if (rows.in.tokens == 0 || !rows.token(rows.in.shown, rows.in.row, token) || !token.weight) return;
    for (uint32_t slot = 0; slot < token.used; ++slot) {
      rows.number(token.id[slot]);
      rows.number(double(token.weight[slot]));
      rows.end();
    }
  }
};

SWITCHYARD_PLUGIN(plugin) { plugin.view<View>("@ID@.view"); }
