from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0005_how_fast_boxes_are"),
    ]

    operations = []
